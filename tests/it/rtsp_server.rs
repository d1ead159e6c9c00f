//! The RTSP server, point by point of what players need (the table in `republish::rtsp`), with cameras that publish
//! onto the bus directly.

mod authentication;
mod delivery;
mod players;
mod requests;

use super::support::publisher::Publisher;
use fanlight::access::{Access, Auth};
use fanlight::bus::Bus;
use fanlight::republish::rtsp::{Options, Server, Statistics};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

struct Gateway {
    bus: Arc<Bus>,
    address: SocketAddr,
    udp_ports: (u16, u16),
    statistics: Arc<Statistics>,
    cancel: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

impl Gateway {
    fn start() -> Self {
        Self::with(Options::default(), "127.0.0.1:0", true)
    }

    fn with(options: Options, listen: &str, udp: bool) -> Self {
        Self::guarded(options, listen, udp, Arc::new(Access::new(Auth::None, Vec::new())))
    }

    fn guarded(options: Options, listen: &str, udp: bool, access: Arc<Access>) -> Self {
        let server = Server::bind(&[listen.parse().unwrap()], udp.then_some((0, 0)), options).unwrap();
        let address = server.local_addrs()[0];
        let udp_ports = server.udp_ports().first().copied().unwrap_or_default();
        let statistics = server.statistics();
        let (bus, cancel) = (Bus::new(), CancellationToken::new());
        let serving = tokio::spawn(server.serve(Arc::clone(&bus), access, cancel.clone()));
        Self { bus, address, udp_ports, statistics, cancel, serving }
    }

    fn camera(&self, name: &str) -> Publisher {
        Publisher::new(&self.bus, name, false)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
