//! Looks for cameras on the local network.

use super::wire::{DISCOVERY_PORT, Message, TEG};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::Instant;

/// When searches go out, after the start; then each 3 s. Cameras miss datagrams; the vendor's app searches four times.
const SEARCHES: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(2)];
const SEARCH_EVERY: Duration = Duration::from_secs(3);
/// More cameras than any house has: whoever answers as more is no camera.
const MOST: usize = 256;
/// Longer than any answer: one camera takes 76 bytes.
const DATAGRAM: usize = 2048;

/// A camera that answered a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where the answer came from: what to write as `address`.
    pub address: Ipv4Addr,
    /// Its name for good: what to write as `uid`. Empty if it told none.
    pub uid: String,
    /// Its UDP port for login and media, as announced; `None` if it announced none.
    pub media_port: Option<u16>,
    /// It has a number from the vendor's cloud, so it was let out to the internet.
    pub called_home: bool,
}

/// Searches for cameras for so long, at addresses of which each is a network's broadcast address or a camera's own, with
/// the port for searches ([`DISCOVERY_PORT`]). Answers whoever answered, once each, by address. No login is tried: the
/// cameras stay as they are.
///
/// # Errors
/// No UDP socket can be opened. An address that nothing can be sent to is left out.
pub async fn discover(targets: &[SocketAddr], time: Duration) -> io::Result<Vec<Found>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.set_broadcast(true)?;
    let start = Instant::now();
    let end = start + time;
    let mut due = SEARCHES.iter().map(|at| start + *at).chain((1..).map(|n| start + SEARCHES[3] + SEARCH_EVERY * n));
    let mut next = due.next().unwrap_or(end);
    let mut found = BTreeMap::new();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(end) => break,
            () = tokio::time::sleep_until(next) => {
                for target in targets {
                    if let Err(error) = socket.send_to(&TEG.search(), target).await {
                        tracing::debug!(%error, %target, "a search was not sent");
                    }
                }
                next = due.next().unwrap_or(end);
            }
            received = socket.recv_from(&mut buffer) => match received {
                Ok((length, from)) => note(&mut found, from, buffer.get(..length).unwrap_or_default()),
                // What an earlier search met, as "port unreachable".
                Err(error) => tracing::debug!(%error, "an answer to a search"),
            },
        }
    }
    Ok(found.into_values().collect())
}

/// Notes the cameras of one answer.
fn note(found: &mut BTreeMap<(Ipv4Addr, String), Found>, from: SocketAddr, bytes: &[u8]) {
    let IpAddr::V4(ip) = from.ip().to_canonical() else { return };
    let from = SocketAddrV4::new(ip, from.port());
    let Ok(Message::SearchAnswer(answer)) = TEG.parse(bytes) else { return };
    for camera in answer.cameras.into_iter().filter(|_| answer.valid) {
        if found.len() == MOST {
            return;
        }
        let camera = Found {
            address: ip,
            media_port: camera.port(from, DISCOVERY_PORT),
            called_home: camera.ids != [0; 2],
            uid: camera.uid,
        };
        found.entry((ip, camera.uid.clone())).or_insert(camera);
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{Ids, SearchAnswer, vectors::V2, vectors::V3};
    use super::*;
    use crate::simulate::iwfcam::{Camera, Options, Sound, bars};

    fn camera(host: u8, port: u16, uid: &str, ids: Ids) -> Camera {
        let options = Options {
            address: Ipv4Addr::new(127, 0, 0, host),
            discovery_port: port,
            media_port: 0,
            broadcast: Some(Ipv4Addr::new(127, 255, 255, 255)),
            uid: uid.to_owned(),
            ids,
            ignore_first: 1,
            ..Options::default()
        };
        Camera::start(options, bars(64, 48).unwrap(), Sound::tone(false)).unwrap()
    }

    #[tokio::test]
    async fn all_cameras_of_a_network_are_found_once() {
        let first = camera(51, 0, "AAA-1", Ids::default());
        let port = first.discovery().port();
        let second = camera(52, port, "BBB-2", Ids([5, 0, 7]));
        let network = SocketAddr::from((Ipv4Addr::new(127, 255, 255, 255), port));
        let (nobody, strange) =
            (SocketAddr::from((Ipv4Addr::new(127, 0, 0, 53), port)), "[::1]:10104".parse().unwrap());
        let mut found = Vec::new();
        // One round is enough unless the machine is very busy.
        for _ in 0..20 {
            found = discover(&[network, nobody, strange], Duration::from_millis(700)).await.unwrap();
            if found.len() == 2 {
                break;
            }
        }
        let wanted = |camera: &Camera, uid: &str, called_home| Found {
            address: *camera.media().ip(),
            uid: uid.to_owned(),
            media_port: Some(camera.media().port()),
            called_home,
        };
        assert_eq!(found, [wanted(&first, "AAA-1", false), wanted(&second, "BBB-2", true)]);
        assert_eq!((first.counters().commands, first.counters().logins), (0, 0), "nothing but the search");
    }

    #[tokio::test]
    async fn it_ends_in_time_where_nobody_answers() {
        assert_eq!(discover(&[], Duration::from_millis(1)).await.unwrap(), []);
        let nobody = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 54), 10_104));
        assert_eq!(discover(&[nobody], Duration::from_millis(50)).await.unwrap(), []);
    }

    #[test]
    fn whoever_answers_as_too_many_is_not_believed_for_ever() {
        let mut found = BTreeMap::new();
        note(&mut found, "[::1]:10104".parse().unwrap(), V2);
        for bytes in [V3, &V2[..70], &[]] {
            note(&mut found, "192.0.2.1:10104".parse().unwrap(), bytes);
        }
        let Ok(Message::SearchAnswer(answer)) = TEG.parse(V2) else { panic!() };
        note(&mut found, "192.0.2.1:10104".parse().unwrap(), &SearchAnswer { valid: false, ..answer }.write(TEG));
        assert!(found.is_empty());
        for n in 0..1_000_u32 {
            note(&mut found, SocketAddr::from((Ipv4Addr::from(0xc000_0200 + n), 10_104)), V2);
            note(&mut found, SocketAddr::from((Ipv4Addr::from(0xc000_0200 + n), 10_104)), V2);
        }
        assert_eq!(found.len(), MOST);
        assert!(found.values().all(|camera| camera.uid == "DEMO001-0011223344AB-1A2B3C" && !camera.called_home));
    }
}
