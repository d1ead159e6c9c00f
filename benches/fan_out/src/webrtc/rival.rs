//! The `webrtc` crate as a server, made the way its examples `broadcast` and `rtp-to-webrtc` are: packets are made once
//! and go through a broadcast channel to a task of each viewer, which writes them into a track of the viewer's own.
//! Default interceptors, multi-threaded runtime. The camera is pulled with retina.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::StreamExt;
use retina::client::{PlayOptions, Session, SessionOptions, SetupOptions, TcpTransportOptions, Transport};
use retina::codec::{CodecItem, FrameFormat};
use rtc::media_stream::MediaStreamTrack;
use rtc::rtp;
use rtc::rtp::packetizer::Packetizer;
use rtc::rtp_transceiver::rtp_sender::{RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, broadcast, watch};
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::peer_connection::{
    PeerConnectionEventHandler, RTCIceGatheringState, RTCPeerConnectionState, RTCSessionDescription,
};

use super::http;

/// Packets a viewer may be behind: the channel of the crate's example, and room for a large key picture.
const BACKLOG: usize = 1024;

/// The least that plays.
const PAGE: &str = "<!doctype html><title>Camera</title><video autoplay muted></video><script>
const peer = new RTCPeerConnection();
peer.ontrack = ({ track }) => document.querySelector('video').srcObject = new MediaStream([track]);
peer.addTransceiver('video', { direction: 'recvonly' });
peer.createOffer().then(async (offer) => {
    await peer.setLocalDescription(offer);
    const answer = await fetch('/whep/cam', { method: 'POST', body: offer.sdp });
    await peer.setRemoteDescription({ type: 'answer', sdp: await answer.text() });
});
</script>";

/// Serves until the process is ended.
///
/// # Errors
/// The camera cannot be played, or ends.
pub fn serve(camera: &str, listener: std::net::TcpListener) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    listener.set_nonblocking(true)?;
    let (packets, _) = broadcast::channel(BACKLOG);
    runtime.block_on(async {
        tokio::spawn(accept(TcpListener::from_std(listener)?, packets.clone()));
        pull(camera, packets).await
    })
}

async fn pull(camera: &str, packets: broadcast::Sender<rtp::Packet>) -> Result<()> {
    let mut session = Session::describe(camera.parse()?, SessionOptions::default()).await?;
    let options = SetupOptions::default()
        .transport(Transport::Tcp(TcpTransportOptions::default()))
        .frame_format(FrameFormat::SIMPLE);
    session.setup(0, options).await?;
    let mut media = session.play(PlayOptions::default()).await?.demuxed()?;
    let payloader = super::h264(super::H264[0].1).payloader()?;
    let sequencer = Box::new(rtp::sequence::new_random_sequencer());
    let mut packetizer = rtp::packetizer::new_packetizer(Instant::now(), 1200, 0, 0, payloader, sequencer, 90_000);
    let mut last = None;
    while let Some(item) = media.next().await {
        let CodecItem::VideoFrame(frame) = item? else { continue };
        let ticks = frame.timestamp().elapsed();
        let step = last.replace(ticks).map_or(3_600, |last| ticks - last);
        for packet in packetizer.packetize(Instant::now(), &Bytes::from(frame.into_data()), step as u32)? {
            let _ = packets.send(packet); // nobody watches
        }
    }
    anyhow::bail!("the camera has ended")
}

async fn accept(listener: TcpListener, packets: broadcast::Sender<rtp::Packet>) {
    while let Ok((stream, _)) = listener.accept().await {
        let packets = packets.clone();
        tokio::spawn(async move {
            if let Err(e) = answer(stream, packets).await {
                eprintln!("{e:#}");
            }
        });
    }
}

async fn answer(mut stream: TcpStream, packets: broadcast::Sender<rtp::Packet>) -> Result<()> {
    let request = http::read(&mut stream).await?;
    if request.start.starts_with("GET") {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length:";
        return Ok(stream.write_all(format!("{head} {}\r\n\r\n{PAGE}", PAGE.len()).as_bytes()).await?);
    }
    if !request.start.starts_with("POST") {
        // a viewer that goes says so to the peer connection as well
        return Ok(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await?);
    }
    let (state, mut changes) = watch::channel(RTCPeerConnectionState::New);
    let events = Arc::new(Events { gathered: Notify::new(), state });
    let peer = super::peer(events.clone()).await?;
    let ssrc = fastrand::u32(1..);
    let track = Arc::new(TrackLocalStaticRTP::new(MediaStreamTrack::new(
        "stream".into(),
        "track".into(),
        "label".into(),
        RtpCodecKind::Video,
        vec![RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() },
            codec: super::h264(super::H264[0].1),
            ..Default::default()
        }],
    )));
    let sender = peer.add_track(track.clone() as Arc<dyn TrackLocal>).await?;
    peer.set_remote_description(RTCSessionDescription::offer(String::from_utf8(request.body)?)?).await?;
    let description = peer.create_answer(None).await?;
    let sdp = super::gathered(&*peer, description, &events.gathered).await?;
    let head = "HTTP/1.1 201 Created\r\nContent-Type: application/sdp\r\nLocation: /session\r\nContent-Length:";
    stream.write_all(format!("{head} {}\r\n\r\n{sdp}", sdp.len()).as_bytes()).await?;

    changes
        .wait_for(|state| *state != RTCPeerConnectionState::New && *state != RTCPeerConnectionState::Connecting)
        .await?;
    let payload_type =
        sender.get_parameters().await?.rtp_parameters.codecs.first().context("no codec in common")?.payload_type;
    let mut packets = packets.subscribe();
    while *changes.borrow() == RTCPeerConnectionState::Connected {
        let packet = tokio::select! {
            packet = packets.recv() => packet,
            _ = changes.changed() => continue,
        };
        match packet {
            Ok(mut packet) => {
                packet.header.ssrc = ssrc;
                packet.header.payload_type = payload_type;
                track.write_rtp(packet).await?;
            }
            Err(broadcast::error::RecvError::Lagged(missed)) => eprintln!("{missed} packets missed"),
            Err(broadcast::error::RecvError::Closed) => break,
        }
    }
    Ok(peer.close().await?)
}

struct Events {
    gathered: Notify,
    state: watch::Sender<RTCPeerConnectionState>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Events {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.gathered.notify_one();
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.state.send_replace(state);
    }
}
