//! `fanlight demo`: one simulated device of each family and an ordinary configuration file that names them. Whoever runs
//! the gateway with that file does not know that it is a demo.

mod devices;

use super::{SimulateError, rtsp};
use crate::access::password;
use crate::config::Secret;
use crate::ingest::{mini_doorbell, push};
use devices::{Devices, LOGIN, MAX_CLIENTS};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

/// Who may reach the gateway of a demo. The cameras stay on loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// This machine.
    Loopback,
    /// Everybody in the local network who has the password that [`Demo::guide`] tells.
    Lan,
}

impl Reach {
    fn listen(self) -> Ipv4Addr {
        match self {
            Self::Loopback => Ipv4Addr::LOCALHOST,
            Self::Lan => Ipv4Addr::UNSPECIFIED,
        }
    }

    /// Our address as those see it who may reach us.
    fn host(self) -> IpAddr {
        let lan = || {
            // Connecting a UDP socket sends nothing and tells the address that would be used.
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
            socket.local_addr().map(|address| address.ip())
        };
        match self {
            Self::Loopback => Ipv4Addr::LOCALHOST.into(),
            Self::Lan => lan().unwrap_or_else(|_: std::io::Error| Ipv4Addr::LOCALHOST.into()),
        }
    }
}

/// Who may watch a demo in the local network.
#[derive(Debug)]
struct Admin {
    password: Secret,
    stream_key: Secret,
}

impl Admin {
    fn new() -> Self {
        Self { password: password::random_key(), stream_key: password::random_key() }
    }

    fn lines(&self) -> Result<String, SimulateError> {
        let hash = password::hash(self.password.reveal()).map_err(std::io::Error::other)?;
        let key = self.stream_key.reveal();
        Ok(format!("users:\n  - {{ name: admin, role: admin, password_hash: \"{hash}\", stream_key: {key} }}\n"))
    }
}

/// The devices on loopback and the configuration of a gateway in front of them, until it is dropped.
#[derive(Debug)]
pub struct Demo {
    devices: Devices,
    rtsp: SocketAddr,
    http: SocketAddr,
    bells: SocketAddr,
    config: PathBuf,
    admin: Option<Admin>,
    /// Holds the configuration; removed with the demo.
    _dir: tempfile::TempDir,
}

impl Demo {
    /// Starts the devices, picks free ports for the gateway (the usual ones if nobody has them) and writes its
    /// configuration. Blocks for some seconds. Those that call the gateway begin with [`call`](Self::call).
    ///
    /// # Errors
    /// What keeps a device from starting, or a file from being written.
    pub fn start(reach: Reach) -> Result<Self, SimulateError> {
        let devices = Devices::start()?;
        let listen = reach.listen();
        let (rtsp, http) = (free_tcp(listen, 8554)?, free_tcp(listen, 8484)?);
        let udp = free_udp_pair(listen, 8000)?;
        let webrtc = free_both(listen, 8555)?;
        let bells = free_tcp(listen, mini_doorbell::PORT)?;
        let ftp = free_tcp(listen, push::ftp::PORT)?;
        let dir = tempfile::Builder::new().prefix("fanlight-demo-").tempdir()?;
        let config = dir.path().join("fanlight.yaml");
        let admin = (reach == Reach::Lan).then(Admin::new);
        let who = match &admin {
            Some(admin) => admin.lines()?,
            None => "auth: none                    # whoever reaches it may watch: fine on loopback only\n".to_owned(),
        };
        let text = format!(
            "\
# Written by `fanlight demo`; removed when the demo ends. Yours looks the same, with your cameras' addresses.
http: {{ listen: \"{http}\" }}
rtsp: {{ listen: \"{rtsp}\", udp_ports: {udp}-{} }}
webrtc: {{ listen: \"{webrtc}\" }}
mini_doorbell: {{ listen: \"{bells}\" }}
ftp: {{ listen: \"{ftp}\", passive_ports: 0 }}
{who}cameras:
  hall:                       # short form: just the address
    source: {hall}
    max_connections: {MAX_CLIENTS}
  street:                     # long form: with a sub stream and a login
    source:
      rtsp:
        url: {street}
        sub: {sub}
        username: {LOGIN}
        password: {LOGIN}
    max_connections: {MAX_CLIENTS}
  door:                       # a doorbell that calls us and leaves one picture a visitor, upside down
    source: mini-doorbell://{bell}
  corner:                     # JPEG pictures in datagrams; on loopback it has another port than in real life
    source:
      iwfcam: {{ address: {corner}, discovery_port: {corner_port} }}
  yard:                       # JPEG pictures by HTTP
    source:
      http:
        url: {yard}
        username: {LOGIN}
        password: {LOGIN}
  porch:                      # whatever sends its pictures here, with a token
    source:
      push: {{ token: {token} }}
",
            udp + 1,
            hall = devices.hall.url(),
            street = devices.street.url(),
            sub = devices.street.sub_url().unwrap_or_default(),
            bell = devices.bell(),
            corner = devices.corner.discovery().ip(),
            corner_port = devices.corner.discovery().port(),
            yard = devices.yard.url("/video"),
            token = devices.token.reveal(),
        );
        std::fs::write(&config, text)?;
        let seen = |address: SocketAddr| SocketAddr::new(reach.host(), address.port());
        // To the devices of this machine, also where the whole network may watch.
        let bells = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), bells.port());
        Ok(Self { devices, rtsp: seen(rtsp), http: seen(http), bells, config, admin, _dir: dir })
    }

    /// Lets those devices begin that call the gateway, once it is up. By default at the addresses of the configuration.
    ///
    /// # Errors
    /// What keeps them from starting.
    pub fn call(&self, gateway: Option<(SocketAddr, SocketAddr)>) -> Result<(), SimulateError> {
        let usual = (SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.http.port()), self.bells);
        let (http, bells) = gateway.unwrap_or(usual);
        self.devices.call(http, bells)
    }

    /// The configuration file: to be run like any other.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The simulated RTSP cameras by their names in the configuration.
    pub fn cameras(&self) -> [(&'static str, &rtsp::Camera); 2] {
        [("hall", &self.devices.hall), ("street", &self.devices.street)]
    }

    /// What to open and what to type, for people. True once the gateway is up.
    pub fn guide(&self) -> String {
        let login = self.admin.as_ref().map(|admin| format!("admin:{}@", admin.stream_key.reveal()));
        let base = format!("rtsp://{}{}", login.unwrap_or_default(), self.rtsp);
        let http = self.http;
        let mut text = format!(
            "\nFanlight demo: simulated devices; a visitor rings every 30 s.\n\n  \
             http://{http}/{:<width$} the wall: open this\n",
            "",
            width = 42_usize.saturating_sub(format!("http://{http}/").len()),
        );
        let rows = [
            ("hall", "people at a table, H.264 with B-frames"),
            ("street", "cars, H.264 with AAC sound"),
            ("street/sub", "the same camera's second stream"),
            ("door", "a doorbell that sends one picture a visitor (GuoGee)"),
            ("corner", "JPEG in UDP datagrams (IWFCam), here as H.264"),
            ("yard", "MJPEG by HTTP, here as H.264"),
            ("porch", "pictures that are pushed to us, here as H.264"),
            ("yard?video=copy", "the JPEG pictures themselves (RFC 2435)"),
        ];
        for (name, about) in rows {
            let _ = writeln!(text, "  {:<42} {about}", format!("{base}/{name}"));
        }
        if let Some(admin) = &self.admin {
            let _ = writeln!(text, "\n  Sign in as admin, password {}", admin.password.reveal());
        }
        let _ = write!(
            text,
            "
Watch or look closer:
  ffplay -rtsp_transport tcp {base}/hall
  ffprobe -rtsp_transport tcp {base}/street
  ffmpeg -rtsp_transport udp -i {base}/street -t 10 -c copy street.mkv
  gst-launch-1.0 playbin uri={base}/street
  vlc {base}/hall                 (or Media > Open Network Stream; Debian's own VLC has no RTSP)
  curl {curl}http://{http}/v1/cameras
  curl {curl}-o door.jpg http://{http}/v1/cameras/door/snapshot.jpg
  curl {curl}http://{http}/v1/events

Any number may watch: a camera sees one connection for each of its streams. To compare, the cameras themselves:
  {}
  {}  (user demo, password demo)
Configuration: {}
Ctrl-C ends the demo.
",
            self.devices.hall.url(),
            self.devices.street.url(),
            self.config.display(),
            curl = if self.admin.is_some() { "-u admin " } else { "" },
        );
        text
    }
}

/// `preferred` at that address if nobody has it, else any free port.
fn free_tcp(listen: Ipv4Addr, preferred: u16) -> std::io::Result<SocketAddr> {
    let any = || TcpListener::bind((listen, 0));
    TcpListener::bind((listen, preferred)).or_else(|_| any())?.local_addr()
}

/// The same for a number that is free in TCP and UDP.
fn free_both(listen: Ipv4Addr, preferred: u16) -> std::io::Result<SocketAddr> {
    let both = |port: u16| {
        let listener = TcpListener::bind((listen, port))?;
        let address = listener.local_addr()?;
        UdpSocket::bind(address).map(|_| address)
    };
    let any = || (0..64).find_map(|_| both(0).ok()).ok_or_else(|| std::io::ErrorKind::AddrInUse.into());
    both(preferred).or_else(|_| any())
}

/// An even UDP port whose successor is free too (RFC 3550 section 11): `preferred` or any.
fn free_udp_pair(listen: Ipv4Addr, preferred: u16) -> std::io::Result<u16> {
    let pair = |port: u16| {
        let first = UdpSocket::bind((listen, port))?;
        let port = first.local_addr()?.port();
        let next = port.checked_add(1).filter(|_| port.is_multiple_of(2));
        let next = next.ok_or(std::io::ErrorKind::AddrInUse)?;
        UdpSocket::bind((listen, next)).map(|_| port)
    };
    pair(preferred).or_else(|mut error| {
        for _ in 0..64 {
            match pair(0) {
                Ok(port) => return Ok(port),
                Err(e) => error = e,
            }
        }
        Err(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Auth;
    use crate::ingest::Source;

    #[test]
    fn writes_an_ordinary_configuration_and_tidies_up() {
        let demo = Demo::start(Reach::Loopback).unwrap();
        let config = crate::config::load(demo.config()).unwrap();
        assert_eq!((config.auth, &config.warnings[..]), (Auth::None, &[][..]));
        let cameras: Vec<_> = config.cameras.iter().map(|camera| (&*camera.name, camera.source.family())).collect();
        let expected = [
            ("hall", "rtsp"),
            ("street", "rtsp"),
            ("door", "mini_doorbell"),
            ("corner", "iwfcam"),
            ("yard", "http"),
            ("porch", "push"),
        ];
        assert_eq!(cameras, expected);
        for (camera, (name, simulated)) in config.cameras.iter().zip(demo.cameras()) {
            assert_eq!((camera.name.as_str(), camera.max_connections), (name, MAX_CLIENTS));
            let Source::Rtsp(source) = &camera.source else { panic!("an RTSP camera") };
            assert_eq!(source.url.as_str(), simulated.url());
            assert_eq!(source.sub.as_ref().map(|sub| sub.to_string()), simulated.sub_url());
        }
        let guide = demo.guide();
        assert!(guide.contains(&format!("rtsp://{}/street/sub", demo.rtsp)), "{guide}");
        let path = demo.config().to_owned();
        drop(demo);
        assert!(!path.exists());
    }

    #[test]
    fn the_local_network_is_asked_for_a_password() {
        let demo = Demo::start(Reach::Lan).unwrap();
        let config = crate::config::load(demo.config()).unwrap();
        let (admin, user) = (demo.admin.as_ref().unwrap(), &config.users[0]);
        assert_eq!((config.auth, user.name.as_str()), (Auth::Users, "admin"));
        assert!(password::verify(admin.password.reveal(), user.password_hash.as_ref().unwrap().reveal()));
        assert_eq!(user.stream_key.as_ref(), Some(&admin.stream_key));
        let guide = demo.guide();
        assert!(guide.contains(admin.password.reveal()) && guide.contains(admin.stream_key.reveal()));
        let file = std::fs::read_to_string(demo.config()).unwrap();
        assert!(!file.contains(admin.password.reveal()));
    }

    #[test]
    fn taken_ports_are_passed_over() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_ne!(free_tcp(Ipv4Addr::LOCALHOST, port).unwrap().port(), port);
        let first = free_udp_pair(Ipv4Addr::LOCALHOST, 0).unwrap();
        let _held = UdpSocket::bind((Ipv4Addr::LOCALHOST, first + 1)).unwrap();
        assert_ne!(free_udp_pair(Ipv4Addr::LOCALHOST, first).unwrap(), first);
    }
}
