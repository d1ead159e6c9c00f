//! The programs that are compared, each started fresh behind a fresh camera.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::child::{Process, sibling};
use crate::clip::Clip;

/// Which program the viewers play from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The load tool's own camera, with nothing between.
    Camera,
    /// One thread, one epoll, one writev per picture and socket.
    Floor,
    /// gstreamer-rtsp-server, shared factory.
    Rival,
    /// The gateway.
    Fanlight,
    /// The gateway, its viewers over WebRTC.
    FanlightWebrtc,
    /// The `webrtc` crate, used as its examples do.
    WebrtcCrate,
    /// GStreamer's webrtcbin, one for each viewer.
    Webrtcbin,
}

impl Kind {
    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Camera => "camera (no gateway)",
            Self::Floor => "floor",
            Self::Rival => "gstreamer-rtsp-server",
            Self::Fanlight => "fanlight",
            Self::FanlightWebrtc => "fanlight WebRTC",
            Self::WebrtcCrate => "webrtc crate",
            Self::Webrtcbin => "webrtcbin",
        }
    }

    /// Its viewers speak WebRTC.
    pub fn is_webrtc(self) -> bool {
        matches!(self, Self::FanlightWebrtc | Self::WebrtcCrate | Self::Webrtcbin)
    }

    fn pulls(self) -> bool {
        !matches!(self, Self::Camera | Self::Floor)
    }
}

/// What every row needs.
#[derive(Clone, Debug)]
pub struct Env {
    /// The clip.
    pub clip: PathBuf,
    /// Its pictures a second.
    pub fps: u32,
    /// Its key picture interval in seconds.
    pub gop_seconds: u32,
    /// The gateway's executable.
    pub fanlight: PathBuf,
    /// For logs, configuration, profiles.
    pub folder: PathBuf,
}

impl Env {
    /// Pictures until the clip begins again.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn pictures(&self) -> Result<u32> {
        Ok(Clip::load(&self.clip, self.fps)?.pictures() as u32)
    }
}

/// A camera and the server that pulls it.
#[derive(Debug)]
pub struct Running {
    kind: Kind,
    server: Option<Process>,
    camera: Process,
    /// Where the viewers connect.
    pub address: SocketAddr,
    /// From the start to the first accepted connection; 0 for the camera itself.
    pub start_ms: f64,
}

impl Running {
    /// Starts both and waits until the server accepts connections.
    ///
    /// # Errors
    /// Something does not start within 10 s.
    pub fn start(kind: Kind, env: &Env) -> Result<Self> {
        let log = |name: &str| env.folder.join(format!("{name}.log"));
        let clip = env.clip.to_str().context("the clip's path is not UTF-8")?;
        let fps = env.fps.to_string();
        // as many clients as the demo's cameras allow; the camera without gateway takes all
        let limit = if kind.pulls() { "3" } else { "100000" };
        let args = ["camera", clip, &fps, limit];
        let mut camera = if kind == Kind::Floor {
            Process::start(&sibling("fan-out-floor")?, &[clip, &fps], &log("floor"))?
        } else {
            Process::start(&sibling("fan-out")?, &args, &log("camera"))?
        };
        let pulled = camera.address()?;
        if !kind.pulls() {
            return Ok(Self { kind, server: None, camera, address: pulled, start_ms: 0.0 });
        }
        let begin = Instant::now();
        let url = format!("rtsp://{pulled}/cam");
        let (server, address) = match kind {
            Kind::Fanlight => fanlight(env, &url, "rtsp")?,
            Kind::FanlightWebrtc => fanlight(env, &url, "http")?,
            Kind::Webrtcbin => {
                // Debian's own Python has the bindings
                let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/webrtc/webrtcbin.py");
                listening(Process::start("/usr/bin/python3".as_ref(), &[script, &url], &log("webrtcbin"))?)?
            }
            Kind::WebrtcCrate => {
                listening(Process::start(&sibling("fan-out-webrtc-rival")?, &[&url], &log("webrtc-rival"))?)?
            }
            _ => listening(Process::start(&sibling("fan-out-rival")?, &[&url], &log("rival"))?)?,
        };
        while std::net::TcpStream::connect(address).is_err() {
            if begin.elapsed() > Duration::from_secs(10) {
                bail!("{} does not listen: {}", kind.name(), server.log_tail());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let start_ms = begin.elapsed().as_secs_f64() * 1e3;
        Ok(Self { kind, server: Some(server), camera, address, start_ms })
    }

    /// The program that plays viewers of it, its arguments, and the path of the stream.
    ///
    /// # Errors
    /// As [`sibling`].
    pub fn viewers(&self) -> Result<(PathBuf, &'static [&'static str], &'static str)> {
        Ok(if self.kind.is_webrtc() {
            (sibling("fan-out-webrtc")?, &[], "/whep/cam")
        } else {
            (sibling("fan-out")?, &["viewers"], "/cam")
        })
    }

    /// The process whose cost is measured.
    pub fn pid(&self) -> u32 {
        self.server.as_ref().map_or(self.camera.pid(), Process::pid)
    }

    /// The camera's process, where it is another.
    pub fn camera_pid(&self) -> Option<u32> {
        self.server.as_ref().map(|_| self.camera.pid())
    }

    /// Whether the server has ended by itself, with the end of its log.
    pub fn crashed(&mut self) -> Option<String> {
        let server = self.server.as_mut().unwrap_or(&mut self.camera);
        server.ended().then(|| server.log_tail())
    }

    /// When the camera sent its first picture, in Unix microseconds. To be asked once, and first.
    ///
    /// # Errors
    /// It does not say.
    pub fn camera_start_us(&mut self) -> Result<u64> {
        self.camera.line(Duration::from_secs(5))?["unix_us"].as_u64().context("the camera has not started")
    }

    /// Most sessions the camera had at once, and all it ever had.
    pub fn camera_sessions(&self) -> (u64, u64) {
        let last = self.camera.pending_lines().pop().unwrap_or(Value::Null);
        (last["peak"].as_u64().unwrap_or(0), last["total"].as_u64().unwrap_or(0))
    }
}

/// The gateway with an ordinary configuration: one camera, no users, any ports.
fn fanlight(env: &Env, url: &str, port: &str) -> Result<(Process, SocketAddr)> {
    let (config, ports) = (env.folder.join("fanlight.yaml"), env.folder.join("ports.json"));
    let udp = free_udp_pair()?;
    std::fs::write(
        &config,
        format!(
            "http: {{ listen: \"127.0.0.1:0\" }}\nrtsp: {{ listen: \"127.0.0.1:0\", udp_ports: {udp}-{} }}\n\
             webrtc: {{ listen: \"127.0.0.1:0\" }}\nauth: none\n\
             cameras:\n  cam:\n    source: {url}\n    max_connections: 1\n",
            udp + 1
        ),
    )?;
    let _ = std::fs::remove_file(&ports); // of the row before
    let args = ["run", "--config", config.to_str().context("path")?, "--ports-file", ports.to_str().context("path")?];
    let mut server = Process::start(&env.fanlight, &args, &env.folder.join("fanlight.log"))?;
    let begin = Instant::now();
    loop {
        let text = std::fs::read_to_string(&ports).unwrap_or_default();
        if let Ok(value) = serde_json::from_str::<Value>(&text) {
            return Ok((server, first_address(&value[port]).with_context(|| format!("no {port} address in {text}"))?));
        }
        if begin.elapsed() > Duration::from_secs(10) || server.ended() {
            bail!("fanlight wrote no {}: {}", ports.display(), server.log_tail());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn listening(mut server: Process) -> Result<(Process, SocketAddr)> {
    let address = server.address()?;
    Ok((server, address))
}

/// An address, itself or the first of a list.
fn first_address(port: &Value) -> Option<SocketAddr> {
    match port {
        Value::String(address) => address.parse().ok(),
        Value::Array(list) => list.first()?.as_str()?.parse().ok(),
        _ => None,
    }
}

fn free_udp_pair() -> Result<u16> {
    let bind = |port: u16| UdpSocket::bind((Ipv4Addr::LOCALHOST, port));
    (0..1000)
        .map(|_| 2 * fastrand::u16(5_000..16_000)) // below the ports that viewers take
        .find(|&port| bind(port).is_ok() && bind(port + 1).is_ok())
        .context("no free pair of UDP ports")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_file_may_hold_one_address_or_a_list() {
        for text in [r#"{"rtsp":"127.0.0.1:5"}"#, r#"{"rtsp":["127.0.0.1:5","[::1]:6"],"http":[]}"#] {
            let ports: Value = serde_json::from_str(text).unwrap();
            assert_eq!(first_address(&ports["rtsp"]), Some("127.0.0.1:5".parse().unwrap()));
        }
        assert_eq!(first_address(&Value::Null), None);
    }
}
