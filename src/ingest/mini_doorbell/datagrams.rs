//! The units' side over UDP: who is there, where to upload to, signs of life. Read from the firmware, whose handlers were
//! executed; nobody has tried it on a real unit, so all of it is off unless the configuration names it.
//!
//! Three functions are never sent, because they do harm: F0 makes a unit tell its Wi-Fi password in clear to anybody in
//! the network, F7 resets it to its factory settings, 40 stores a setting of unknown meaning.

use super::wire::{self, BellId, Carrier, Header, function};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};

/// The port of a unit for local control.
pub const CONTROL_PORT: u16 = 5_880;
/// The port that units send their registrations to.
pub const PRESENCE_PORT: u16 = 30_001;
/// The sequence of our settings, by which their answers are known from those to queries.
const SETTING: u16 = 7;
/// Answers that are looked at after a query; more are a flood.
const MOST_ANSWERS: usize = 256;
/// The longest datagram that means anything to us, and a byte more.
const READ: usize = wire::HEADER + 64;
/// After an error of a socket.
const PAUSE: Duration = Duration::from_secs(1);

/// A unit that answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its id.
    pub id: BellId,
    /// Its address.
    pub address: IpAddr,
}

/// Looks for units for so long: asks at `target`, a broadcast address or one unit's, port [`CONTROL_PORT`].
///
/// # Errors
/// What the system says of the socket, or of sending.
pub async fn discover(target: SocketAddr, patience: Duration) -> io::Result<Vec<Found>> {
    let socket = socket().await?;
    let deadline = Instant::now() + patience;
    let mut found: Vec<Found> = Vec::new();
    let mut buffer = [0; READ];
    // Datagrams get lost: three questions, one answer for each unit.
    for _ in 0..3 {
        socket.send_to(&wire::query(), target).await?;
        let until = deadline.min(Instant::now() + patience / 3);
        while let Ok(received) = timeout_at(until, socket.recv_from(&mut buffer)).await {
            let (count, from) = received?;
            let Some(id) = answer(buffer.get(..count).unwrap_or_default()) else { continue };
            if found.len() < MOST_ANSWERS && !found.iter().any(|unit| unit.id == id) {
                found.push(Found { id, address: from.ip() });
            }
        }
    }
    Ok(found)
}

/// What to tell the units, and how often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Announcing {
    /// Where to ask.
    pub(super) control: SocketAddr,
    pub(super) every: Duration,
    /// Where they are to upload to; by default whichever of our addresses leads to the unit.
    pub(super) address: Option<Ipv4Addr>,
}

/// Asks who is there and tells each unit that is `wanted` to upload here, again and again.
pub(super) async fn announce(announcing: Announcing, wanted: impl Fn(BellId) -> bool) {
    loop {
        let error = match announce_until_error(announcing, &wanted).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        tracing::debug!(%error, "the doorbells could not be told where to upload to");
        sleep(announcing.every).await;
    }
}

async fn announce_until_error(
    announcing: Announcing,
    wanted: &impl Fn(BellId) -> bool,
) -> io::Result<std::convert::Infallible> {
    let socket = socket().await?;
    let mut rounds = interval(announcing.every);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = [0; READ];
    // The units that were told in this round, and how many answers there were.
    let (mut told, mut answers) = (HashMap::new(), 0);
    loop {
        tokio::select! {
            _ = rounds.tick() => {
                told.clear();
                answers = 0;
                socket.send_to(&wire::query(), announcing.control).await?;
            }
            received = socket.recv_from(&mut buffer) => {
                let (count, from) = received?;
                answers += 1;
                let Some(id) = answer(buffer.get(..count).unwrap_or_default()) else { continue };
                if answers > MOST_ANSWERS || !wanted(id) || told.insert(id, from).is_some() {
                    continue;
                }
                let address = match announcing.address {
                    Some(address) => address,
                    None => match way(from).await? {
                        IpAddr::V4(address) => address,
                        // The units know IPv4 only.
                        IpAddr::V6(_) => continue,
                    },
                };
                tracing::debug!(%id, unit = %from, %address, "told where to upload to");
                socket.send_to(&wire::set_upload(id, SETTING, address), from).await?;
            }
        }
    }
}

/// Hears registrations and never answers them: a unit that is answered stops, and begins to talk to other ports.
pub(super) async fn presence(socket: UdpSocket, alive: impl Fn(BellId)) {
    let mut buffer = [0; READ];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((count, _)) => {
                let header = Header::parse(buffer.get(..count).unwrap_or_default(), Carrier::Udp);
                if let Ok(header) = header
                    && header.function == function::REGISTRATION
                {
                    alive(header.id);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a registration was not received");
                sleep(PAUSE).await;
            }
        }
    }
}

/// The unit that answers a query, if it is such an answer.
fn answer(datagram: &[u8]) -> Option<BellId> {
    let (header, _) = wire::datagram(datagram).ok()?;
    (header.function == function::ANSWER && header.sequence == 0).then_some(header.id)
}

async fn socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.set_broadcast(true)?;
    Ok(socket)
}

/// Our address that leads there: the kernel knows it for a socket that is connected, which for UDP sends nothing.
async fn way(peer: SocketAddr) -> io::Result<IpAddr> {
    let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    probe.connect(peer).await?;
    Ok(probe.local_addr()?.ip())
}
