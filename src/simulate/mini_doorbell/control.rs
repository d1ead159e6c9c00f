//! The units' side over UDP.

use super::Shared;
use crate::ingest::mini_doorbell::BellId;
use crate::ingest::mini_doorbell::wire::{self, Carrier, Header, function};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::interval;

/// Units that hear and register.
pub(super) struct Units {
    pub(super) ids: Vec<BellId>,
    pub(super) socket: Option<UdpSocket>,
    pub(super) register: Option<SocketAddr>,
    pub(super) register_every: Duration,
    pub(super) shared: Arc<Shared>,
}

/// A socket at which units hear.
pub(super) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

impl Units {
    pub(super) async fn run(self) {
        tokio::join!(self.hear(), self.register());
    }

    async fn register(&self) {
        let Some(to) = self.register else { return };
        let Ok(socket) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await else { return };
        let mut rhythm = interval(self.register_every);
        loop {
            rhythm.tick().await;
            for id in &self.ids {
                let frame = Header::new(*id, function::REGISTRATION, 0, 0).write(Carrier::Udp);
                // Nobody may be listening.
                let _ = socket.send_to(&frame, to).await;
            }
        }
    }

    async fn hear(&self) {
        let Some(socket) = &self.socket else { return };
        let mut buffer = [0; 1_500];
        loop {
            let Ok((count, from)) = socket.recv_from(&mut buffer).await else { continue };
            let Ok((header, extra)) = wire::datagram(buffer.get(..count).unwrap_or_default()) else { continue };
            for id in &self.ids {
                if !self.understands(*id, &header, extra) {
                    continue;
                }
                let answer = Header { sequence: header.sequence, ..Header::new(*id, function::ANSWER, 0, 0) };
                // The asker may be gone.
                let _ = socket.send_to(&answer.write(Carrier::Udp), from).await;
            }
        }
    }

    /// Whether that unit answers.
    fn understands(&self, id: BellId, header: &Header, extra: &[u8]) -> bool {
        // Except for a search, everything must name the unit and its kind.
        let own = header.id == id && header.device_type == 0x43 && header.version == 1;
        match header.function {
            function::QUERY if header.sequence == 0 || own => {
                self.shared.counters.send_modify(|counters| counters.queries += 1);
                true
            }
            function::SET_UPLOAD if own => {
                let Ok(address) = <[u8; 4]>::try_from(extra) else { return false };
                // A unit keeps its port.
                self.shared.server.send_modify(|server| server.set_ip(IpAddr::V4(address.into())));
                self.shared.counters.send_modify(|counters| counters.redirected += 1);
                true
            }
            _ => false,
        }
    }
}
