//! The WebRTC engine with the `webrtc` crate as its viewer, and cameras that publish onto the bus directly.

mod delivery;

use super::support::publisher::Publisher;
use super::support::whep_viewer::Viewer;
use fanlight::access::{Access, Auth};
use fanlight::bus::{Bus, Device};
use fanlight::media::{Codec, Kind};
use fanlight::republish::webrtc::{Lane, LaneSource, Options, Plan, Server, Session, Statistics};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
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
