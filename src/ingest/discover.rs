//! `fanlight discover`: asks the local network which devices are there, without touching them.

use super::{iwfcam, mini_doorbell};
use futures::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// A device that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// A name to begin with, unique among those found together.
    pub name: String,
    /// What it is, for people; one line.
    pub about: String,
    /// What to write after `source:`.
    pub source: String,
}

impl fmt::Display for Found {
    /// Lines to put under `cameras:`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, about, source } = self;
        write!(f, "  # {about}\n  {name}:\n    source: {source}\n")
    }
}

/// Asks for so long whoever can be reached by broadcast.
///
/// # Errors
/// No socket could be opened, or there is no network.
pub async fn discover(time: Duration) -> io::Result<Vec<Found>> {
    from(&broadcasts()?, Ports { iwfcam: iwfcam::wire::DISCOVERY_PORT, bells: mini_doorbell::CONTROL_PORT }, time).await
}

/// Where each family listens for questions.
#[derive(Clone, Copy)]
struct Ports {
    iwfcam: u16,
    bells: u16,
}

/// Asks for so long at these addresses.
async fn from(to: &BTreeSet<Ipv4Addr>, ports: Ports, time: Duration) -> io::Result<Vec<Found>> {
    let at = |port: u16| to.iter().map(move |address| SocketAddr::from((*address, port)));
    let cameras: Vec<SocketAddr> = at(ports.iwfcam).collect();
    let (cameras, bells) = tokio::join!(
        iwfcam::discover(&cameras, time),
        join_all(at(ports.bells).map(|address| mini_doorbell::discover(address, time)))
    );
    let mut found: Vec<Found> = cameras?.iter().map(of_camera).collect();
    // A network that cannot be reached now answers nothing; the others may.
    let bells: BTreeMap<_, _> = bells.into_iter().flatten().flatten().map(|bell| (bell.id, bell.address)).collect();
    found.extend(bells.into_iter().map(|(id, address)| Found {
        name: "doorbell".into(),
        about: format!("a mini doorbell at {address}; it must be told where to upload: see `announce` in the README"),
        source: format!("mini-doorbell://{id}"),
    }));
    number(&mut found);
    Ok(found)
}

fn of_camera(camera: &iwfcam::Found) -> Found {
    let mut about = format!("an IWFCam camera at {}", camera.address);
    // Anybody may answer, with anything.
    let plain = camera.uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let source = if plain && !camera.uid.is_empty() {
        // It is found again when its address changes.
        format!("{{ iwfcam: {{ uid: {}, address: {} }} }}", camera.uid, camera.address)
    } else {
        format!("iwfcam://{}", camera.address)
    };
    if camera.called_home {
        about += "; it has called its maker's cloud: block it in your router";
    }
    Found { name: "iwfcam".into(), about, source }
}

/// Tells devices of one name apart.
fn number(found: &mut [Found]) {
    let names: Vec<String> = found.iter().map(|found| found.name.clone()).collect();
    for (index, device) in found.iter_mut().enumerate() {
        let same = |other: &&String| **other == device.name;
        if names.iter().filter(same).count() > 1 {
            let before = names.iter().take(index).filter(same).count();
            device.name = format!("{}_{}", device.name, before + 1);
        }
    }
}

/// The broadcast addresses of our networks, and the one for all.
pub(super) fn broadcasts() -> io::Result<BTreeSet<Ipv4Addr>> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    let own = interfaces.filter_map(|interface| Some(interface.broadcast?.as_sockaddr_in()?.ip()));
    Ok(own.filter(|address| !address.is_unspecified()).chain([Ipv4Addr::BROADCAST]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::ingest::Source;
    use crate::ingest::mini_doorbell::BellId;
    use crate::ingest::mini_doorbell::wire::{Carrier, Header, function};
    use crate::simulate::iwfcam::{Camera, Options, Sound, bars};
    use std::path::Path;
    use tokio::net::UdpSocket;
    use tokio_util::sync::{CancellationToken, DropGuard};

    fn camera(host: u8, port: u16, uid: &str) -> Camera {
        let options = Options {
            address: Ipv4Addr::new(127, 0, 0, host),
            discovery_port: port,
            media_port: 0,
            uid: uid.into(),
            ..Options::default()
        };
        Camera::start(options, bars(64, 48).unwrap(), Sound::tone(false)).unwrap()
    }

    /// The datagram side of a bell: answers every question.
    async fn bell(id: BellId) -> (SocketAddr, DropGuard) {
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 61), 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let cancel = CancellationToken::new();
        let answering = cancel.clone();
        tokio::spawn(answering.run_until_cancelled_owned(async move {
            let mut buffer = [0; 256];
            loop {
                let (count, from) = socket.recv_from(&mut buffer).await.unwrap();
                let question = Header::parse(&buffer[..count], Carrier::Udp).unwrap();
                assert_eq!(question.function, function::QUERY);
                let answer = Header { id, function: function::ANSWER, extra: 0, ..question };
                socket.send_to(&answer.write(Carrier::Udp), from).await.unwrap();
            }
        }));
        (address, cancel.drop_guard())
    }

    #[tokio::test]
    async fn what_is_found_can_be_pasted_into_a_configuration() {
        let first = camera(61, 0, "AAA-0001");
        let iwfcam = first.discovery().port();
        let second = camera(62, iwfcam, "a: [b");
        let id = BellId([0, 0xff, 2, 0, 1, 2, 3, 0]);
        let (bell, _bell) = bell(id).await;
        let ports = Ports { iwfcam, bells: bell.port() };
        let both = BTreeSet::from([*first.media().ip(), *second.media().ip()]);
        let mut found = Vec::new();
        // One round is enough unless the machine is very busy.
        for _ in 0..20 {
            found = from(&both, ports, Duration::from_millis(700)).await.unwrap();
            if found.len() == 3 {
                break;
            }
        }
        let names: Vec<&str> = found.iter().map(|found| found.name.as_str()).collect();
        assert_eq!(names, ["iwfcam_1", "iwfcam_2", "doorbell"]);
        let text: String = found.iter().map(Found::to_string).collect();
        let read = config::parse("f.yaml", &format!("cameras:\n{text}"), Path::new(""), &|_| None).unwrap();
        let families: Vec<_> = read.cameras.iter().map(|camera| camera.source.family()).collect();
        assert_eq!(families, ["iwfcam", "iwfcam", "mini_doorbell"], "{text}");
        assert!(text.contains("uid: AAA-0001") && text.contains("iwfcam://127.0.0.62"), "{text}");
        let Source::MiniDoorbell(bell) = &read.cameras[2].source else { panic!("a bell") };
        assert_eq!(bell.id, Some(id));
    }

    #[test]
    fn there_is_a_way_to_everybody() {
        assert!(broadcasts().unwrap().contains(&Ipv4Addr::BROADCAST));
    }
}
