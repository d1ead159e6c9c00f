//! The WebRTC engine with the `webrtc` crate as its viewer, and cameras that publish onto the bus directly.

mod delivery;
mod ends;
mod paths;

use super::support::publisher::Publisher;
use super::support::whep_viewer::Viewer;
use fanlight::access::{Access, Auth};
use fanlight::bus::{Bus, Device};
use fanlight::media::{Codec, Kind};
use fanlight::republish::webrtc::{Lane, LaneSource, Options, Plan, Server, Session, Statistics};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

struct Gateway {
    bus: Arc<Bus>,
    server: Arc<Server>,
    access: Arc<Access>,
    address: SocketAddr,
    statistics: Arc<Statistics>,
    cancel: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

impl Gateway {
    fn start() -> Self {
        Self::with(Options::default(), "127.0.0.1:0")
    }

    fn with(options: Options, listen: &str) -> Self {
        let server = Server::bind(&[listen.parse().unwrap()], options).unwrap();
        let (bus, cancel) = (Bus::new(), CancellationToken::new());
        let access = Arc::new(Access::new(Auth::None, Vec::new()));
        let serving = tokio::spawn(Arc::clone(&server).serve(Arc::clone(&access), cancel.clone()));
        let (address, statistics) = (server.local_addrs()[0], server.statistics());
        Self { bus, server, access, address, statistics, cancel, serving }
    }

    fn camera(&self, name: &str, with_audio: bool) -> Publisher {
        Publisher::new(&self.bus, name, with_audio)
    }

    /// A session for that viewer's offer.
    fn create(&self, viewer: &Viewer, device: &Arc<Device>) -> Session {
        let offer = viewer.parsed();
        let plan = plan(device, offer.audio.is_some());
        self.server.create(&offer, plan, Arc::clone(device), HERE, None).unwrap()
    }

    /// A viewer that has got the answer.
    async fn view(&self, viewer: &Viewer, device: &Arc<Device>) -> Session {
        let session = self.create(viewer, device);
        viewer.accept(&session).await;
        session
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// The camera's own H.264 and PCMU for the payload types of the test viewer.
fn plan(device: &Device, audio: bool) -> Plan {
    let stream = device.main();
    let lane = |kind: Kind, codec, payload_type| {
        let (track, _) = stream.tracks().into_iter().find(|(_, info)| info.kind() == kind)?;
        let fmtp = match kind {
            Kind::Video => "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f".to_owned(),
            Kind::Audio => String::new(),
        };
        Some(Lane { payload_type, codec, fmtp, source: LaneSource::Native(Arc::clone(stream), track) })
    };
    Plan {
        video: lane(Kind::Video, Codec::H264, 102),
        audio: audio.then(|| lane(Kind::Audio, Codec::Pcmu, 0)).flatten(),
    }
}

/// What went to the viewer.
#[derive(Default)]
struct Counts {
    carried: AtomicUsize,
    dropped: AtomicUsize,
    alerts: AtomicUsize,
}

/// A router between viewers and the gateway: all comes from its own address, and some of it is lost.
struct Relay {
    address: SocketAddr,
    counts: Arc<Counts>,
    task: tokio::task::JoinHandle<()>,
}

impl Relay {
    /// Of `loss` packets of media for the viewer one is lost; 0: none.
    async fn start(gateway: SocketAddr, loss: usize) -> Self {
        let outside = UdpSocket::bind("127.0.0.2:0").await.unwrap();
        let inside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = outside.local_addr().unwrap();
        let counts: Arc<Counts> = Arc::default();
        let counted = Arc::clone(&counts);
        let task = tokio::spawn(async move {
            let (mut viewer, mut media) = (None, 0);
            let (mut from_viewer, mut from_gateway) = ([0; 2_048], [0; 2_048]);
            loop {
                tokio::select! {
                    Ok((length, from)) = outside.recv_from(&mut from_viewer) => {
                        viewer = Some(from);
                        let _ = inside.send_to(&from_viewer[..length], gateway).await;
                    }
                    Ok((length, _)) = inside.recv_from(&mut from_gateway) => {
                        let packet = &from_gateway[..length];
                        let is_media = packet[0] >= 128 && !(192..=223).contains(&packet[1]);
                        media += usize::from(is_media);
                        if is_media && loss > 0 && media % loss == 0 {
                            counted.dropped.fetch_add(1, Ordering::Relaxed);
                        } else if let Some(viewer) = viewer {
                            counted.carried.fetch_add(1, Ordering::Relaxed);
                            counted.alerts.fetch_add(usize::from(packet[0] == 21), Ordering::Relaxed);
                            let _ = outside.send_to(packet, viewer).await;
                        }
                    }
                }
            }
        });
        Self { address, counts, task }
    }

    /// The answer with the relay as the only candidate.
    fn redirect(&self, answer: &str) -> String {
        let (ip, port) = (self.address.ip(), self.address.port());
        let mut lines: Vec<_> = answer.lines().filter(|line| !line.starts_with("a=candidate:")).collect();
        let own = format!("a=candidate:1 1 udp 2130706431 {ip} {port} typ host");
        let at = lines.iter().position(|line| *line == "a=end-of-candidates").unwrap();
        lines.insert(at, &own);
        lines.join("\r\n") + "\r\n"
    }

    fn carried(&self) -> usize {
        self.counts.carried.load(Ordering::Relaxed)
    }

    /// DTLS alerts for the viewer (RFC 6347 section 4.1: content type 21).
    fn alerts(&self) -> usize {
        self.counts.alerts.load(Ordering::Relaxed)
    }

    fn dropped(&self) -> usize {
        self.counts.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}
