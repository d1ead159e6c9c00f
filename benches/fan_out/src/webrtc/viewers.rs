//! WebRTC viewers, all in one thread: receive only, nothing decoded, every picture counted.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionEventHandler, RTCIceGatheringState, RTCPeerConnectionState, RTCSessionDescription,
};

use super::http;
use crate::plan::{self, Leave, Outcome, Plan, Quantiles, Report};
use crate::receiver::Receiver;
use crate::stamp::now_us;

/// Plays the plan to its end.
///
/// # Errors
/// The runtime cannot be made. What happens to a viewer is in its outcome.
pub fn run(plan: Plan) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let plan = Arc::new(plan);
        let tasks: Vec<_> = (0..plan.viewers.len()).map(|id| tokio::spawn(view(plan.clone(), id))).collect();
        let (mut viewers, mut latency_us) = (Vec::new(), Vec::new());
        for task in tasks {
            let (outcome, mut latency) = task.await.context("a viewer panicked")?;
            viewers.push(outcome);
            latency_us.append(&mut latency);
        }
        let latency_ms = Quantiles::of(latency_us.iter().map(|us| f64::from(*us) / 1e3).collect());
        Ok(Report { latency_ms, viewers })
    })
}

struct Handler {
    receiver: Arc<Mutex<Receiver>>,
    gathered: Notify,
    /// The first whole key picture is there.
    key: Notify,
    failed: Notify,
}

fn lock(receiver: &Mutex<Receiver>) -> MutexGuard<'_, Receiver> {
    receiver.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Events(Arc<Handler>);

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Events {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.0.gathered.notify_one();
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        if state == RTCPeerConnectionState::Failed {
            self.0.failed.notify_one();
        }
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let handler = self.0.clone();
        tokio::spawn(async move {
            let mut waiting = true;
            while let Some(event) = track.poll().await {
                let TrackRemoteEvent::OnRtpPacket(packet) = event else { continue };
                let mut receiver = lock(&handler.receiver);
                let header = &packet.header;
                receiver.rtp(header.sequence_number, header.timestamp, header.marker, &packet.payload, now_us());
                if waiting && receiver.seen.first_key_ms.is_some() {
                    waiting = false;
                    handler.key.notify_one();
                }
            }
        });
    }
}

async fn view(plan: Arc<Plan>, id: usize) -> (Outcome, Vec<u32>) {
    let viewer = &plan.viewers[id];
    let at = |ms: u64| Instant::now() + Duration::from_micros((plan.start_us + ms * 1000).saturating_sub(now_us()));
    sleep_until(at(viewer.start_ms)).await;
    let window = viewer.timed.then(|| {
        let us = |ms: u64| plan.start_us + ms * 1000;
        (us(plan.window_ms.0), us(plan.window_ms.1))
    });
    let handler = Arc::new(Handler {
        receiver: Arc::new(Mutex::new(Receiver::new(now_us(), window))),
        gathered: Notify::new(),
        key: Notify::new(),
        failed: Notify::new(),
    });
    let end = at(viewer.leave.map_or(plan.end_ms, |(ms, _)| ms.min(plan.end_ms)));
    let error = match watch(&plan, viewer, &handler, end).await {
        Ok(()) => None,
        Err(e) => Some(format!("{e:#}")),
    };
    let mut receiver = lock(&handler.receiver);
    let seen = receiver.seen.clone();
    let outcome = Outcome {
        group: viewer.group.clone(),
        transport: viewer.transport,
        error: error.or_else(|| (seen.pictures == 0).then(|| "no picture".to_owned())),
        seen,
        live_again_ms: None,
        skipped: 0,
    };
    (outcome, std::mem::take(&mut receiver.latency_us))
}

async fn watch(plan: &Plan, viewer: &plan::Viewer, handler: &Arc<Handler>, end: Instant) -> Result<()> {
    let server: SocketAddr = plan.server.parse().context("server address")?;
    let peer = super::peer(Arc::new(Events(handler.clone()))).await?;
    let result = async {
        let (peer, location) = (&*peer, offer(&*peer, server, &plan.path, handler).await?);
        let stay = async {
            tokio::select! {
                () = handler.failed.notified() => bail!("the connection failed"),
                () = handler.key.notified(), if viewer.leave_at_key => Ok(()),
                // half of the crate is polled from here
                () = std::future::pending() => Ok(()),
            }
        };
        let stayed = timeout_at(end, stay).await.unwrap_or(Ok(()));
        if viewer.leave.is_none_or(|(_, how)| how == Leave::Teardown) {
            http::delete(server, &location).await?;
        }
        let _ = peer; // until here
        stayed
    };
    let result = result.await;
    let _ = peer.close().await; // it may be closed already
    result
}

async fn offer(peer: &dyn PeerConnection, server: SocketAddr, path: &str, handler: &Handler) -> Result<String> {
    let receive = RTCRtpTransceiverInit { direction: RTCRtpTransceiverDirection::Recvonly, ..Default::default() };
    peer.add_transceiver_from_kind(RtpCodecKind::Video, Some(receive)).await?;
    let offer = peer.create_offer(None).await?;
    let offer = super::gathered(peer, offer, &handler.gathered).await?;
    let answer = http::post(server, path, &offer).await?;
    peer.set_remote_description(RTCSessionDescription::answer(answer.sdp)?).await?;
    Ok(answer.location)
}
