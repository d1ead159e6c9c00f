//! A WebRTC viewer: the `webrtc` crate, receiving.

use super::PATIENCE;
use super::http::post;
use fanlight::media::Kind;
use fanlight::republish::webrtc::{Offer, Session};
use rtc::interceptor::Registry;
use rtc::peer_connection::configuration::RTCOfferOptions;
use rtc::peer_connection::configuration::interceptor_registry::register_default_interceptors;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_H264, MIME_TYPE_OPUS, MIME_TYPE_PCMU, MediaEngine};
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::transport::RTCIceCandidateInit;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtp::Packet;
use rtc::rtp_transceiver::rtp_sender::{RTCRtpCodec, RTCRtpCodecParameters, RtpCodecKind};
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState,
};

/// How a viewer is to be.
#[derive(Clone, Debug)]
pub struct Wishes {
    pub audio: bool,
    /// Over TCP only.
    pub tcp: bool,
    /// The address that it is at.
    pub address: &'static str,
}

impl Default for Wishes {
    fn default() -> Self {
        Self { audio: false, tcp: false, address: "127.0.0.1:0" }
    }
}

/// Each with its SSRC.
type Tracks = Arc<Mutex<Vec<(Kind, u32, Arc<dyn TrackRemote>)>>>;

struct Handler {
    gathered: watch::Sender<bool>,
    packets: mpsc::UnboundedSender<(Kind, Packet)>,
    tracks: Tracks,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        self.gathered.send_if_modified(|gathered| {
            *gathered |= state == RTCIceGatheringState::Complete;
            *gathered
        });
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let kind = if track.kind().await == RtpCodecKind::Video { Kind::Video } else { Kind::Audio };
        let ssrc = track.ssrcs().await.first().copied().unwrap_or_default();
        self.tracks.lock().unwrap().push((kind, ssrc, Arc::clone(&track)));
        let packets = self.packets.clone();
        tokio::spawn(async move {
            while let Some(event) = track.poll().await {
                if let TrackRemoteEvent::OnRtpPacket(packet) = event
                    && packets.send((kind, packet)).is_err()
                {
                    return;
                }
            }
        });
    }
}

/// A viewer that has made its offer.
pub struct Viewer {
    peer: Arc<dyn PeerConnection>,
    pub offer: String,
    tcp: bool,
    packets: mpsc::UnboundedReceiver<(Kind, Packet)>,
    tracks: Tracks,
    /// Packets of pictures so far, by sequence number from the first one.
    pub seen: BTreeMap<u16, Instant>,
}

fn codec(mime_type: &str, clock_rate: u32, channels: u16, fmtp: &str, payload_type: u8) -> RTCRtpCodecParameters {
    let rtp_codec = RTCRtpCodec {
        mime_type: mime_type.to_owned(),
        clock_rate,
        channels,
        sdp_fmtp_line: fmtp.to_owned(),
        rtcp_feedback: vec![],
    };
    RTCRtpCodecParameters { rtp_codec, payload_type }
}

impl Viewer {
    pub async fn new(wishes: Wishes) -> Self {
        let mut media = MediaEngine::default();
        let h264 = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
        media.register_codec(codec(MIME_TYPE_H264, 90_000, 0, h264, 102), RtpCodecKind::Video).unwrap();
        media.register_codec(codec(MIME_TYPE_OPUS, 48_000, 2, "", 111), RtpCodecKind::Audio).unwrap();
        media.register_codec(codec(MIME_TYPE_PCMU, 8_000, 1, "", 0), RtpCodecKind::Audio).unwrap();
        let registry = register_default_interceptors(Registry::new(), &mut media).unwrap();
        let (gathered, mut is_gathered) = watch::channel(false);
        let (sender, packets) = mpsc::unbounded_channel();
        let tracks = Arc::default();
        let handler = Arc::new(Handler { gathered, packets: sender, tracks: Arc::clone(&tracks) });
        let settings = SettingEngineBuilder::new()
            .with_include_loopback_candidate(true)
            .with_multicast_dns_mode(rtc::ice::mdns::MulticastDnsMode::Disabled)
            .with_ice_connection_attempts(Some(Duration::from_millis(20)), None)
            .build();
        let builder = PeerConnectionBuilder::new()
            .with_media_engine(media)
            .with_setting_engine(settings)
            .with_interceptor_registry(registry)
            .with_handler(handler);
        let addresses = vec![wishes.address.to_owned()];
        let builder = if wishes.tcp { builder.with_tcp_addrs(addresses) } else { builder.with_udp_addrs(addresses) };
        let peer: Arc<dyn PeerConnection> = Arc::new(builder.build().await.unwrap());
        let receive = || RTCRtpTransceiverInit {
            direction: RTCRtpTransceiverDirection::Recvonly,
            streams: vec![],
            send_encodings: vec![],
        };
        peer.add_transceiver_from_kind(RtpCodecKind::Video, Some(receive())).await.unwrap();
        if wishes.audio {
            peer.add_transceiver_from_kind(RtpCodecKind::Audio, Some(receive())).await.unwrap();
        }
        let offer = peer.create_offer(None).await.unwrap();
        peer.set_local_description(offer).await.unwrap();
        tokio::time::timeout(PATIENCE, is_gathered.wait_for(|done| *done)).await.expect("gathered").unwrap();
        let offer = peer.local_description().await.unwrap().sdp;
        Self { peer, offer, tcp: wishes.tcp, packets, tracks, seen: BTreeMap::new() }
    }

    /// A viewer of a whole gateway, by WHEP.
    pub async fn of(http: SocketAddr, path: &str, wishes: Wishes) -> Self {
        let viewer = Self::new(wishes).await;
        let (status, answer) = post(http, path, "application/sdp", &viewer.offer).await;
        assert_eq!(status, 201, "{answer}");
        viewer.answer(&answer).await;
        viewer
    }

    /// What signalling reads of the offer.
    pub fn parsed(&self) -> Offer {
        Offer::parse(&self.offer).unwrap()
    }

    pub async fn answer(&self, text: &str) {
        // The crate only connects to TCP candidates that come one by one.
        let (candidates, rest): (Vec<_>, Vec<_>) =
            text.lines().partition(|line| self.tcp && line.starts_with("a=candidate:"));
        let answer = RTCSessionDescription::answer(rest.join("\r\n") + "\r\n").unwrap();
        self.peer.set_remote_description(answer).await.unwrap();
        for candidate in candidates.iter().filter(|line| line.contains(" tcp ")) {
            let candidate = candidate.trim_start_matches("a=").to_owned();
            let candidate = RTCIceCandidateInit { candidate, ..RTCIceCandidateInit::default() };
            self.peer.add_ice_candidate(candidate).await.unwrap();
        }
    }

    pub async fn accept(&self, session: &Session) {
        self.answer(session.answer()).await;
    }

    /// A new offer that restarts ICE.
    pub async fn restart(&mut self) {
        let options = RTCOfferOptions { ice_restart: true };
        let offer = self.peer.create_offer(Some(options)).await.unwrap();
        self.offer = offer.sdp.clone();
        self.peer.set_local_description(offer).await.unwrap();
    }

    /// The next packet.
    pub async fn packet(&mut self) -> (Kind, Packet) {
        let next = tokio::time::timeout(PATIENCE, self.packets.recv()).await.expect("no packet came").expect("ended");
        if next.0 == Kind::Video {
            self.seen.insert(next.1.header.sequence_number, Instant::now());
        }
        next
    }

    /// The next packet of pictures.
    pub async fn video(&mut self) -> Packet {
        loop {
            if let (Kind::Video, packet) = self.packet().await {
                return packet;
            }
        }
    }

    /// Whatever comes within that time.
    pub async fn packets_for(&mut self, time: Duration) -> Vec<(Kind, Packet)> {
        let mut all = Vec::new();
        let end = tokio::time::Instant::now() + time;
        while let Ok(Some(packet)) = tokio::time::timeout_at(end, self.packets.recv()).await {
            all.push(packet);
        }
        all
    }

    /// Asks for a key picture.
    pub async fn want_key(&self) {
        let track = self.tracks.lock().unwrap().iter().find(|(kind, ..)| *kind == Kind::Video).cloned();
        let (_, ssrc, track) = track.expect("a track");
        let pli = PictureLossIndication { sender_ssrc: 0, media_ssrc: ssrc };
        track.write_rtcp(vec![Box::new(pli)]).await.unwrap();
    }

    pub async fn close(&self) {
        self.peer.close().await.unwrap();
    }
}
