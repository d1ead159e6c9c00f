//! The camera's reception: counts who comes and what they ask, and sends away who is one too many.

use gstreamer::glib;
use gstreamer_rtsp_server::gst_rtsp::RTSPStatusCode;
use gstreamer_rtsp_server::prelude::*;
use gstreamer_rtsp_server::{RTSPClient, RTSPContext};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use tokio::sync::watch;

/// Where a client over the limit is sent away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Refuse {
    /// DESCRIBE is answered with 453 Not Enough Bandwidth.
    #[default]
    Describe,
    /// DESCRIBE is answered to anyone, the first SETUP with 453 Not Enough Bandwidth.
    Setup,
    /// The connection is closed as soon as it is made, as cameras without a thread left for it do.
    Close,
}

/// What a camera has seen since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// TCP connections ever made to the camera, refused ones included.
    pub accepted: u64,
    /// TCP connections open now.
    pub open: u64,
    /// The most that were ever open at once.
    pub peak: u64,
    /// Clients admitted now: from their DESCRIBE to their TEARDOWN or the end of their connection. `max_clients` limits
    /// these.
    pub clients: u64,
    /// The most that were ever admitted at once. A connection that is being closed behind a TEARDOWN still counts as
    /// open for a moment, its client does not.
    pub peak_clients: u64,
    /// DESCRIBE requests of any outcome: a login by Digest takes two, the first is answered with 401.
    pub asked: u64,
    /// DESCRIBE requests that were answered with a description.
    pub describes: u64,
    /// Tracks set up: one for each track of each client.
    pub setups: u64,
    /// PLAY requests that were granted.
    pub plays: u64,
    /// TEARDOWN requests that ended a session.
    pub teardowns: u64,
    /// Clients sent away because there were too many.
    pub refused: u64,
}

#[derive(Debug)]
pub(super) struct Desk {
    limit: Option<u64>,
    refuse: Refuse,
    login: bool,
    counters: watch::Sender<Counters>,
}

/// One connection.
#[derive(Debug, Default)]
struct Visit {
    admitted: AtomicBool,
    /// Its place is kept free from the moment it is closed, whatever is still in flight.
    closed: AtomicBool,
}

impl Desk {
    pub(super) fn new(limit: Option<usize>, refuse: Refuse, login: bool) -> Arc<Self> {
        let limit = limit.map(|n| u64::try_from(n).unwrap_or(u64::MAX));
        Arc::new(Self { limit, refuse, login, counters: watch::Sender::new(Counters::default()) })
    }

    pub(super) fn watch(&self) -> watch::Receiver<Counters> {
        self.counters.subscribe()
    }

    /// Everything that can be counted about this connection is from now on.
    pub(super) fn receive(self: &Arc<Self>, client: &RTSPClient) {
        self.counters.send_modify(|c| {
            c.accepted += 1;
            c.open += 1;
            c.peak = c.peak.max(c.open);
        });
        let visit = Arc::new(Visit::default());
        let (desk, own) = (self.clone(), visit.clone());
        client.connect_closed(move |_| {
            if !own.closed.swap(true, SeqCst) {
                desk.leave(&own);
                desk.counters.send_modify(|c| c.open = c.open.saturating_sub(1));
            }
        });
        if self.refuse == Refuse::Close && !self.admit(&visit) {
            // The server is still busy with the connection: it is closed right after.
            let client = client.clone();
            let close = glib::idle_source_new(None, glib::Priority::HIGH, move || {
                client.close();
                glib::ControlFlow::Break
            });
            close.attach(glib::MainContext::thread_default().as_ref());
            return;
        }
        for (at, count) in [(Refuse::Describe, asked as fn(&mut Counters)), (Refuse::Setup, |_| {})] {
            let (desk, own) = (self.clone(), visit.clone());
            let check = move |_: &RTSPClient, context: &RTSPContext| desk.check(context, at, &own, count);
            match at {
                Refuse::Describe => client.connect_pre_describe_request(check),
                _ => client.connect_pre_setup_request(check),
            };
        }
        let (desk, own) = (self.clone(), visit.clone());
        client.connect_describe_request(move |_, _| {
            desk.counters.send_modify(|c| c.describes += 1);
            if desk.refuse == Refuse::Describe {
                desk.admit(&own);
            }
        });
        let (desk, own) = (self.clone(), visit.clone());
        client.connect_setup_request(move |_, _| {
            desk.counters.send_modify(|c| c.setups += 1);
            // After a TEARDOWN a client may set up again without a second DESCRIBE.
            desk.admit(&own);
        });
        let desk = self.clone();
        client.connect_play_request(move |_, _| desk.counters.send_modify(|c| c.plays += 1));
        let (desk, own) = (self.clone(), visit);
        client.connect_teardown_request(move |_, _| {
            if desk.refuse != Refuse::Close {
                desk.leave(&own);
            }
            desk.counters.send_modify(|c| c.teardowns += 1);
        });
    }

    /// Before a request is carried out, and before the server looks at who asks.
    fn check(&self, context: &RTSPContext, at: Refuse, visit: &Visit, count: fn(&mut Counters)) -> RTSPStatusCode {
        self.counters.send_modify(count);
        // The first request comes without credentials and gets 401, whether there is room or not.
        let known = context.request().is_some_and(|request| !request.parse_auth_credentials().is_empty());
        let concerned = at == self.refuse || (self.refuse == Refuse::Describe && at == Refuse::Setup);
        if !concerned || (self.login && !known) || visit.admitted.load(SeqCst) || self.has_room() {
            return RTSPStatusCode::Ok;
        }
        self.counters.send_modify(|c| c.refused += 1);
        RTSPStatusCode::NotEnoughBandwidth
    }

    fn has_room(&self) -> bool {
        self.limit.is_none_or(|limit| self.counters.borrow().clients < limit)
    }

    /// Takes a place for this connection if it has none yet and one is free.
    fn admit(&self, visit: &Visit) -> bool {
        let mut welcome = true;
        self.counters.send_modify(|c| {
            if visit.admitted.load(SeqCst) || visit.closed.load(SeqCst) {
                return;
            }
            welcome = self.limit.is_none_or(|limit| c.clients < limit);
            if welcome {
                visit.admitted.store(true, SeqCst);
                c.clients += 1;
                c.peak_clients = c.peak_clients.max(c.clients);
            } else {
                c.refused += 1;
            }
        });
        welcome
    }

    fn leave(&self, visit: &Visit) {
        self.counters.send_modify(|c| {
            if visit.admitted.swap(false, SeqCst) {
                c.clients = c.clients.saturating_sub(1);
            }
        });
    }
}

fn asked(counters: &mut Counters) {
    counters.asked += 1;
}
