//! PLAY, and the end of playing.

use super::{Connection, Player, Playing, Refusal, not_ready};
use crate::republish::rtp::{Feed, Item, Joined, Start, bye};
use crate::republish::rtsp::form::{self, Key, key_of};
use crate::republish::rtsp::message::{Request, Response, Status};
use crate::republish::rtsp::target::{StartOption, Target};
use crate::republish::rtsp::viewer::{Counts, Route, SlowLane, Viewer};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

impl Connection {
    pub(super) async fn play(&mut self, request: &Request) -> Result<Option<Response>, Refusal> {
        let player = self.player;
        let session = self.check_session(request)?;
        if session.setups.is_empty() {
            return Err(Status::MethodNotValidInThisState.into());
        }
        if session.playing.is_some() {
            let response = Response::new(Status::Ok, request.cseq()).header("Range", "npt=now-");
            return Ok(Some(self.with_session(response)));
        }
        let target = Target::parse(&request.uri);
        let start = target.options.start.or(session.source.options.start).unwrap_or(if player == Player::Paced {
            StartOption::Squeeze
        } else {
            StartOption::Key
        });
        let (source, setups) = (session.source.clone(), session.setups.clone());
        let hub =
            self.shared.hub(&form::sources(&source.stream, &source.tracks)).ok_or_else(|| not_ready(String::new()))?;
        let feed = &hub.feed;
        let routes: Vec<_> = feed
            .tracks()
            .iter()
            .map(|track| setups.iter().find(|(key, _)| *key == key_of(track)).map(|(_, route)| *route))
            .collect();
        if routes.iter().flatten().count() < setups.len() {
            // The camera came back with another codec between SETUP and PLAY.
            return Err(Status::SessionNotFound.into());
        }
        let wanted: Vec<_> = routes.iter().map(Option::is_some).collect();
        let joined = self.join(feed, start, &wanted).await;
        let udp_addresses = |route: &Route| match *route {
            Route::Udp { rtp, rtcp } => Some([rtp, rtcp]),
            Route::Tcp { .. } => None,
        };
        let udp_addresses: Vec<_> = routes.iter().flatten().filter_map(udp_addresses).flatten().collect();
        let udp = self.peer.udp.clone().filter(|_| !udp_addresses.is_empty());
        if let Some(pair) = &udp {
            pair.listen_for(udp_addresses, &self.alive);
        }
        let base = self.base(&request.uri, &source.path);
        let index_of = |key: Key| source.tracks.iter().position(|track| track.key() == key);
        let info: Vec<_> = feed
            .tracks()
            .iter()
            .zip(&joined.tracks)
            .filter(|(track, _)| setups.iter().any(|(key, _)| *key == key_of(track)))
            .filter_map(|(track, start)| {
                let (index, seq, time) = (index_of(key_of(track))?, start.seq as u16, start.rtp_time);
                Some(format!("url={base}trackID={index};seq={seq};rtptime={time}"))
            })
            .collect();
        let response =
            Response::new(Status::Ok, request.cseq()).header("Range", "npt=now-").header("RTP-Info", &info.join(","));
        self.output.answer(self.with_session(response).into_bytes());

        let via = if udp.is_some() { "udp" } else { "tcp" };
        let viewer = Arc::new(Viewer {
            id: self.shared.viewer_id(),
            feed: Arc::clone(feed),
            output: Arc::clone(&self.output),
            udp: udp.map(|pair| (pair, self.peer.local.ip())),
            routes,
            stop: CancellationToken::new(),
            counts: Counts::default(),
        });
        self.output.admit(Some(viewer.id));
        let shard = hub.shard();
        source.device.viewers.rtsp.fetch_add(1, Ordering::Relaxed);
        self.shared.statistics.viewers.fetch_add(1, Ordering::Relaxed);
        tracing::info!(stream = source.path, via, ?start, "joined");
        shard.slow_lane(SlowLane::start(Arc::clone(&viewer), Arc::clone(&shard), joined));
        if let Some(session) = &mut self.session {
            session.playing = Some(Playing { viewer, shard, device: source.device, since: Instant::now() });
        }
        Ok(None)
    }

    /// Where to start; waits for a key picture if there is none, or if the next one was asked for.
    async fn join(&self, feed: &Feed, start: StartOption, wanted: &[bool]) -> Joined {
        let start = match start {
            StartOption::Key if self.player == Player::Ffmpeg => Start::Primed,
            StartOption::Key => Start::Key,
            StartOption::Squeeze => Start::Squeeze,
            StartOption::Live => Start::Live(feed.end()),
        };
        let mut head = feed.watch();
        let in_time = tokio::time::timeout(self.shared.options.ready_wait, async {
            loop {
                head.mark_unchanged();
                if let Some(joined) = feed.join(start, wanted) {
                    return Some(joined);
                }
                head.changed().await.ok()?;
            }
        });
        let joined = in_time.await.ok().flatten();
        joined.unwrap_or_else(|| feed.join(Start::Now, wanted).expect("starting at the end needs nothing"))
    }

    /// Tells the viewer that its stream is over, if its connection takes it at once.
    pub(super) fn say_goodbye(&self) {
        let Some(playing) = self.session.as_ref().and_then(|session| session.playing.as_ref()) else { return };
        for (index, track) in playing.viewer.feed.tracks().iter().enumerate() {
            playing.viewer.deliver(&Item::Report(index, bye(track.ssrc)));
        }
    }

    pub(super) fn stop_playing(&mut self) {
        let Some(playing) = self.session.as_mut().and_then(|session| session.playing.take()) else { return };
        self.output.admit(None);
        playing.viewer.stop.cancel();
        playing.shard.leave(&playing.viewer);
        playing.device.viewers.rtsp.fetch_sub(1, Ordering::Relaxed);
        let (units, dropped) = (
            playing.viewer.counts.units.load(Ordering::Relaxed),
            playing.viewer.counts.dropped.load(Ordering::Relaxed),
        );
        self.shared.statistics.units.fetch_add(units, Ordering::Relaxed);
        self.shared.statistics.dropped.fetch_add(dropped, Ordering::Relaxed);
        let seconds = playing.since.elapsed().as_secs();
        tracing::info!(units, dropped, seconds, "left");
    }

    /// Ends the session.
    pub(super) fn stop(&mut self) {
        self.stop_playing();
        self.session = None;
        self.idle_since = Instant::now();
    }
}
