//! WebRTC: viewers that measure, and a server made of the same crate (`webrtc`, used as its examples do).

pub mod http;
pub mod rival;
pub mod viewers;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rtc::interceptor::Registry;
use rtc::rtp_transceiver::rtp_sender::{RTCRtpCodec, RTCRtpCodecParameters, RtpCodecKind};
use tokio::sync::Notify;
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCSessionDescription,
    SettingEngineBuilder, register_default_interceptors,
};

/// Payload type and profile of H.264 as viewers offer it: what Chromium offers, packetization-mode 1 alone.
const H264: [(u8, &str); 3] = [(102, "42e01f"), (104, "4d001f"), (106, "64001f")];

fn h264(profile: &str) -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: "video/H264".into(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: format!("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={profile}"),
        rtcp_feedback: Vec::new(),
    }
}

/// A peer connection for H.264 on loopback with the crate's default interceptors.
///
/// # Errors
/// The crate refuses, or no socket can be bound.
async fn peer(handler: Arc<dyn PeerConnectionEventHandler>) -> Result<Arc<dyn PeerConnection>> {
    let mut engine = MediaEngine::default();
    for (payload_type, profile) in H264 {
        let codec = RTCRtpCodecParameters { rtp_codec: h264(profile), payload_type };
        engine.register_codec(codec, RtpCodecKind::Video)?;
    }
    let registry = register_default_interceptors(Registry::new(), &mut engine)?;
    // every 20 ms and not every 200, so that joins are not rounded up
    let settings = SettingEngineBuilder::new().with_ice_connection_attempts(Some(Duration::from_millis(20)), Some(100));
    let peer = PeerConnectionBuilder::new()
        .with_media_engine(engine)
        .with_interceptor_registry(registry)
        .with_setting_engine(settings.build())
        .with_handler(handler)
        .with_udp_addrs(vec!["127.0.0.1:0".to_owned()])
        .build()
        .await?;
    Ok(Arc::new(peer))
}

/// Sets the local description and answers it with all candidates.
///
/// # Errors
/// The crate refuses it, or the candidates are not there after five seconds.
async fn gathered(peer: &dyn PeerConnection, description: RTCSessionDescription, done: &Notify) -> Result<String> {
    peer.set_local_description(description).await?;
    tokio::time::timeout(Duration::from_secs(5), done.notified()).await?;
    let description = peer.local_description().await.ok_or_else(|| anyhow::anyhow!("no local description"))?;
    Ok(description.sdp)
}
