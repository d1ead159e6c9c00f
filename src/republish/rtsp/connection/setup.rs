//! DESCRIBE and SETUP: what a client is told, and where it wants its packets.

use super::{Connection, Described, Refusal, Session, not_ready};
use crate::republish::rtsp::form::{self, Key};
use crate::republish::rtsp::message::{Request, Response, Status};
use crate::republish::rtsp::sdp;
use crate::republish::rtsp::target::Target;
use crate::republish::rtsp::transport::{self, Transport};
use crate::republish::rtsp::viewer::Route;
use std::net::SocketAddr;

impl Connection {
    /// The stream that a target names, once it has a key picture.
    async fn source(&self, target: &Target) -> Result<Described, Refusal> {
        let known = || {
            let session = self.session.as_ref().map(|session| &session.source);
            session.into_iter().chain(&self.described)
        };
        if let Some(known) = known().find(|known| target.path.is_empty() || known.path == target.path)
            && !known.stream.ended().is_cancelled()
            && target.track.is_some()
        {
            return Ok(known.clone());
        }
        let path = match target.path.as_str() {
            "" => known().next().map(|known| known.path.clone()).ok_or(Status::NotFound)?,
            path => path.to_owned(),
        };
        let (device, stream) = self.shared.bus.stream(&path).ok_or(Status::NotFound)?;
        let wait = self.shared.options.ready_wait;
        match tokio::time::timeout(wait, stream.ready()).await {
            Ok(true) => {}
            Ok(false) => return Err(Status::NotFound.into()),
            Err(_) => {
                let reason = device.status().reason.map(|reason| reason.text);
                tracing::info!(path, reason, "no picture in time for a viewer");
                return Err(not_ready(reason.unwrap_or_default()));
            }
        }
        let options = target.options;
        let tracks = form::tracks(&stream, options, &self.shared.options.transcoder, wait).await;
        let tracks = tracks.inspect_err(|error| tracing::info!(path, "a viewer cannot be served: {error}"))?;
        Ok(Described { path, device, stream, tracks, options })
    }

    pub(super) async fn describe(&mut self, request: &Request) -> Result<Response, Refusal> {
        let target = Target::parse(&request.uri);
        let source = self.source(&Target { track: None, ..target }).await?;
        let tracks = source.tracks.iter().enumerate().map(|(index, track)| (index, &*track.info));
        let local = self.peer.local.ip().to_canonical();
        let body = sdp::describe(&source.path, tracks, local, rand::random::<u32>().into()).map_err(|error| {
            tracing::warn!(path = source.path, %error, "cannot describe the stream");
            not_ready(error.to_string())
        })?;
        let response = Response::new(Status::Ok, request.cseq())
            .header("Content-Base", &self.base(&request.uri, &source.path))
            .body("application/sdp", body);
        self.described = Some(source);
        Ok(response)
    }

    /// The stream's URL with a slash at the end, at the host that the client asked for.
    pub(super) fn base(&self, uri: &str, path: &str) -> String {
        let scheme = if self.peer.secure { "rtsps" } else { "rtsp" };
        let authority = uri.split_once("://").and_then(|(_, rest)| rest.split(['/', '?']).next());
        let host = authority.map(|authority| authority.rsplit('@').next().unwrap_or(authority));
        match host.filter(|host| !host.is_empty()) {
            Some(host) => format!("{scheme}://{host}/{path}/"),
            None => {
                let local = SocketAddr::new(self.peer.local.ip().to_canonical(), self.peer.local.port());
                format!("{scheme}://{local}/{path}/")
            }
        }
    }

    pub(super) async fn setup(&mut self, request: &Request) -> Result<Response, Refusal> {
        if request.header("Session").is_some() {
            self.check_session(request)?;
        }
        if self.session.as_ref().is_some_and(|session| session.playing.is_some()) {
            return Err(Status::MethodNotValidInThisState.into());
        }
        let target = Target::parse(&request.uri);
        let mut source = self.source(&target).await?;
        if let Some(session) = &self.session
            && session.source.path != source.path
        {
            return Err(Status::MethodNotValidInThisState.into());
        }
        if let Some(described) = self.described.as_ref().filter(|described| described.path == source.path) {
            // The query of the DESCRIBE counts where the URL of the SETUP has lost it.
            let (asked, told) = (target.options, described.options);
            source.options.start = asked.start.or(told.start);
            source.tracks.clone_from(&described.tracks);
        }
        let done = |key: Key| self.session.iter().flat_map(|session| &session.setups).any(|(known, _)| *known == key);
        let track = match target.track {
            Some(index) => source.tracks.get(index),
            // One control URL for one track; with more, the next one that is not set up.
            None => source.tracks.iter().find(|track| !done(track.key())),
        };
        let track = track.ok_or(Status::NotFound)?.key();
        let transport = transport::choose(request.all("Transport"), self.peer.udp.is_some());
        let route = transport.and_then(|transport| self.route(transport, track)).ok_or(Status::UnsupportedTransport)?;
        let text = match route {
            Route::Tcp { rtp, rtcp } => format!("RTP/AVP/TCP;unicast;interleaved={rtp}-{rtcp};mode=\"PLAY\""),
            Route::Udp { rtp, rtcp } => {
                let (ours_rtp, ours_rtcp) = self.peer.udp.as_ref().map(|pair| pair.ports()).unwrap_or_default();
                let (theirs_rtp, theirs_rtcp) = (rtp.port(), rtcp.port());
                format!(
                    "RTP/AVP;unicast;client_port={theirs_rtp}-{theirs_rtcp};server_port={ours_rtp}-{ours_rtcp};mode=\"PLAY\""
                )
            }
        };
        let session = self.session.get_or_insert_with(|| Session {
            id: format!("{:016x}", rand::random::<u64>()),
            source,
            setups: Vec::new(),
            playing: None,
        });
        session.setups.retain(|(known, _)| *known != track);
        session.setups.push((track, route));
        Ok(self.with_session(Response::new(Status::Ok, request.cseq()).header("Transport", &text)))
    }

    /// The route that a transport means, if it fits the session's others.
    fn route(&self, transport: Transport, track: Key) -> Option<Route> {
        let setups = self.session.iter().flat_map(|session| &session.setups);
        let others: Vec<_> = setups.filter(|(key, _)| *key != track).map(|(_, route)| *route).collect();
        match transport {
            Transport::Tcp { rtp, rtcp } => {
                if others.iter().any(|route| matches!(route, Route::Udp { .. })) {
                    return None;
                }
                let taken = |channel: u8| {
                    others.iter().any(|route| match route {
                        Route::Tcp { rtp, rtcp } => *rtp == channel || *rtcp == channel,
                        Route::Udp { .. } => false,
                    })
                };
                let asked = rtp.zip(rtcp).filter(|(rtp, rtcp)| rtp != rtcp && !taken(*rtp) && !taken(*rtcp));
                let free = || (0..=126).map(|pair| (pair * 2, pair * 2 + 1)).find(|(a, b)| !taken(*a) && !taken(*b));
                let (rtp, rtcp) = asked.or_else(free)?;
                Some(Route::Tcp { rtp, rtcp })
            }
            Transport::Udp { rtp, rtcp } => {
                if others.iter().any(|route| matches!(route, Route::Tcp { .. })) {
                    return None;
                }
                // Our own ports are nobody's: what we sent there would keep the session alive for ever.
                let ours = self.peer.udp.as_ref().map(|pair| pair.ports()).unwrap_or_default();
                let own = |port: u16| port == ours.0 || port == ours.1;
                if self.peer.address.ip() == self.peer.local.ip() && (own(rtp) || own(rtcp)) {
                    return None;
                }
                // Media goes to the address that the connection comes from, whatever the header says.
                let ip = self.peer.address.ip();
                Some(Route::Udp { rtp: SocketAddr::new(ip, rtp), rtcp: SocketAddr::new(ip, rtcp) })
            }
        }
    }
}
