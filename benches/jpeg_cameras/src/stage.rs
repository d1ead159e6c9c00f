//! The processes of a round: cameras, gateway, viewers, bare pipelines.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::child::{Process, sibling};
use serde_json::Value;

use crate::pictures::{FPS, Pictures, SIZE};

/// What stands still for all rounds.
#[derive(Clone, Debug)]
pub struct Env {
    /// The gateway's executable, which also plays the cameras.
    pub fanlight: PathBuf,
    /// For logs and configuration.
    pub folder: PathBuf,
    /// What the cameras show.
    pub pictures: Pictures,
    /// How many cameras.
    pub cameras: usize,
}

/// The cameras, all in one process, on loopback addresses from 127.0.9.1 on, and the gateway in front of them.
#[derive(Debug)]
pub struct Stage {
    /// The cameras' process.
    pub cameras: Process,
    /// The gateway's.
    pub gateway: Process,
    /// Where it serves RTSP.
    pub rtsp: SocketAddr,
}

impl Stage {
    /// Starts both and waits until every camera has a client.
    ///
    /// # Errors
    /// Something does not start within half a minute.
    pub fn start(env: &Env) -> Result<Self> {
        let log = |name: &str| env.folder.join(format!("jpeg-cameras-{name}.log"));
        let (count, fps) = (env.cameras.to_string(), FPS.to_string());
        let folder = env.pictures.folder.to_str().context("path")?;
        let args = ["simulate", "iwfcam", "--pictures", folder, "--count", &count, "--address", "127.0.9.1"];
        let args = [&args[..], &["--fps", &fps, "--no-audio"]].concat();
        let mut cameras = Process::start(&env.fanlight, &args, &log("cameras"))?;
        for _ in 0..env.cameras {
            let line = cameras.line(Duration::from_secs(60))?;
            ensure!(line["event"] == "started", "{line}");
        }

        let mut text = "http: { listen: \"127.0.0.1:0\" }\nrtsp: { listen: \"127.0.0.1:0\", udp_ports: 0 }\n\
                        webrtc: { listen: \"127.0.0.1:0\" }\nauth: none\ncameras:\n"
            .to_owned();
        for n in 0..env.cameras {
            text += &format!("  cam{n}: {{ source: \"iwfcam://127.0.9.{}\" }}\n", n + 1);
        }
        let config = env.folder.join("jpeg-cameras.yaml");
        std::fs::write(&config, text)?;
        let ports = env.folder.join("jpeg-cameras-ports.json");
        let _ = std::fs::remove_file(&ports); // of the round before
        let (config, ports_file) = (config.to_str().context("path")?, ports.to_str().context("path")?);
        let args = ["run", "--config", config, "--ports-file", ports_file];
        let gateway = Process::start(&env.fanlight, &args, &log("gateway"))?;
        let rtsp = until("the gateway's ports", || {
            let ports: Value = serde_json::from_str(&std::fs::read_to_string(&ports).ok()?).ok()?;
            ports["rtsp"][0].as_str()?.parse().ok()
        })
        .with_context(|| gateway.log_tail())?;
        let mut playing = 0;
        until("every camera has a client", || {
            let lines = cameras.pending_lines();
            playing += lines.iter().filter(|line| line["event"] == "login").count();
            (playing >= env.cameras).then_some(())
        })?;
        Ok(Self { cameras, gateway, rtsp })
    }

    /// Starts so many viewers of each camera.
    ///
    /// # Errors
    /// One of them cannot play.
    pub fn viewers(&self, env: &Env, each: usize) -> Result<Process> {
        let (server, count, each) = (self.rtsp.to_string(), env.cameras.to_string(), each.to_string());
        let args = ["viewers", &server, &count, &each];
        let mut viewers =
            Process::start(&sibling("jpeg-cameras")?, &args, &env.folder.join("jpeg-cameras-viewers.log"))?;
        let line = viewers.line(Duration::from_secs(90))?;
        ensure!(line["playing"].is_u64(), "{line}");
        Ok(viewers)
    }

    /// Encoders that run for the gateway now.
    pub fn encoders(&self) -> usize {
        children(self.gateway.pid())
            .filter(|pid| {
                let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                line.split('\0').nth(1) == Some("rendition")
            })
            .count()
    }
}

/// The bare pipelines: one process for each camera, the same pictures at the same rate, the encoder as in
/// `pipelines/jpeg-to-h264.yaml`, and nobody who takes the result.
///
/// # Errors
/// gst-launch-1.0 is not there.
pub fn bare(env: &Env) -> Result<Vec<Process>> {
    let (width, height) = SIZE;
    // 120 millibits a pixel; a key picture every 2 s.
    let (kbps, key) = (u64::from(width * height * FPS) * 120 / 1_000_000, FPS * 2);
    let line = format!(
        "-q multifilesrc location={} index=1 start-index=1 stop-index={} loop=true caps=image/jpeg,framerate={FPS}/1 \
         ! jpegdec ! videoconvert ! video/x-raw,format=I420 \
         ! x264enc tune=zerolatency speed-preset=ultrafast threads=1 bitrate={kbps} vbv-buf-capacity=500 \
         key-int-max={key} ! video/x-h264,profile=constrained-baseline,stream-format=byte-stream,alignment=au \
         ! fakesink sync=true",
        env.pictures.pattern(),
        env.pictures.count
    );
    let words: Vec<&str> = line.split_whitespace().collect();
    let start = |n| {
        let log = env.folder.join(format!("jpeg-cameras-bare-{n}.log"));
        Process::start(Path::new("/usr/bin/gst-launch-1.0"), &words, &log)
    };
    (0..env.cameras).map(start).collect()
}

/// The processes that a process has started.
pub fn children(pid: u32) -> impl Iterator<Item = u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.flat_map(|task| {
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u32>>()
    })
}

fn until<T>(what: &str, mut there: impl FnMut() -> Option<T>) -> Result<T> {
    let begin = Instant::now();
    loop {
        if let Some(found) = there() {
            return Ok(found);
        }
        if begin.elapsed() > Duration::from_secs(30) {
            bail!("waited too long: {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
