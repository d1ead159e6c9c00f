//! One run: a server, a plan of viewers, and what both sides say afterwards.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::child::Process;
use crate::plan::{Plan, Report, Transport, Viewer};
use crate::process::{self, Sample};
use crate::server::{Env, Kind, Running};
use crate::stamp::now_us;

/// Viewers are given this long to be ready before the plan's time begins.
const HEAD_START_US: u64 = 200_000;
/// A picture younger than this is live: five picture intervals.
pub const LIVE_MS: u64 = 200;

/// The viewers' process, playing a plan.
#[derive(Debug)]
pub struct Load {
    process: Process,
    start_us: u64,
    end_ms: u64,
}

impl Load {
    /// Starts the viewers at a random phase of the GOP.
    ///
    /// # Errors
    /// Their process cannot be started.
    pub fn start(
        running: &Running,
        env: &Env,
        viewers: Vec<Viewer>,
        window_ms: (u64, u64),
        end_ms: u64,
    ) -> Result<Self> {
        let phase = fastrand::u64(0..u64::from(env.gop_seconds) * 1_000_000);
        let start_us = now_us() + HEAD_START_US + phase;
        let server = running.address.to_string();
        let (program, args, path) = running.viewers()?;
        let plan = Plan { server, path: path.into(), start_us, window_ms, end_ms, live_ms: LIVE_MS, viewers };
        let mut process = Process::start(&program, args, &env.folder.join("viewers.log"))?;
        process.feed(&serde_json::to_string(&plan)?)?;
        Ok(Self { process, start_us, end_ms })
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sleeps until a time of the plan.
    pub fn sleep_until(&self, ms: u64) {
        std::thread::sleep(Duration::from_micros((self.start_us + ms * 1000).saturating_sub(now_us())));
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The viewers' process failed.
    pub fn report(mut self) -> Result<Report> {
        self.sleep_until(self.end_ms);
        let value = self.process.line(Duration::from_secs(30)).context("the viewers")?;
        Ok(serde_json::from_value(value)?)
    }
}

/// A row of the comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Who served.
    pub server: Kind,
    /// Viewers.
    pub n: usize,
    /// Over UDP rather than TCP.
    pub udp: bool,
    /// Which repeat, from 0.
    pub repeat: usize,
    /// CPU ms of the server per viewer and second.
    pub cpu_ms: f64,
    /// The same in cores for all viewers.
    pub cores: f64,
    /// Median of the latency in ms.
    pub p50_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// Longest time between two pictures of one viewer, in ms.
    pub freeze_ms: f64,
    /// Resident megabytes (10^6 bytes) before the first viewer.
    pub idle_rss_mb: f64,
    /// Most resident megabytes within the window.
    pub rss_mb: f64,
    /// Threads at the window's end.
    pub threads: u64,
    /// File descriptors at the window's end.
    pub fds: u64,
    /// Context switches a second.
    pub switches: f64,
    /// Milliseconds until the server listened.
    pub start_ms: f64,
    /// From TCP connect, or the making of the offer, to the first whole key picture, median over the viewers.
    pub first_key_ms: f64,
    /// Viewers without a picture or ended early.
    pub failed: usize,
    /// Errors of those, the first few.
    pub errors: Vec<String>,
    /// Pictures missing or damaged, of all viewers.
    pub lost_pictures: u64,
    /// Most sessions at once and all sessions the camera had.
    pub camera_sessions: (u64, u64),
    /// Cores used by the viewers, by the camera, and by everything else on the machine.
    pub viewers_cores: f64,
    /// As above.
    pub camera_cores: f64,
    /// As above.
    pub others_cores: f64,
    /// Length of the window in seconds.
    pub window_s: f64,
    /// The machine was too busy with other things.
    pub contended: bool,
}

/// How long a row takes.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Before the first viewer, in which the gateway connects and its idle memory is read.
    pub idle_s: f64,
    /// After the last viewer has come and before the window.
    pub settle_s: f64,
    /// The measured window.
    pub window_s: f64,
}

/// Runs `N` viewers on a fresh server behind a fresh camera.
///
/// # Errors
/// Something cannot be started, or the server crashed.
pub fn row(kind: Kind, n: usize, udp: bool, repeat: usize, timing: Timing, env: &Env) -> Result<Row> {
    let mut running = Running::start(kind, env)?;
    std::thread::sleep(Duration::from_secs_f64(timing.idle_s));
    let idle = process::sample(running.pid());

    let ramp_ms = if n > 10 { 5_000 } else { 100 * n as u64 };
    let viewers = (0..n).map(|i| {
        let mut viewer = Viewer::new("viewer", i as u64 * ramp_ms / n as u64);
        if kind.is_webrtc() {
            viewer.transport = Transport::WebRtc;
        } else if udp {
            viewer.transport = Transport::Udp;
        }
        viewer
    });
    let from = ramp_ms + (timing.settle_s * 1e3) as u64;
    let to = from + (timing.window_s * 1e3) as u64;
    let load = Load::start(&running, env, viewers.collect(), (from, to), to + 200)?;

    load.sleep_until(from);
    let before = Look::now(&running, &load);
    let mut rss = before.server.rss;
    let mut at = from;
    while at + 1000 < to {
        at += 500;
        load.sleep_until(at);
        rss = rss.max(process::rss(running.pid()));
    }
    load.sleep_until(to);
    let after = Look::now(&running, &load);
    let report = load.report()?;
    if let Some(log) = running.crashed() {
        anyhow::bail!("{} ended by itself: {log}", kind.name());
    }

    let seconds = (after.at_us - before.at_us) as f64 / 1e6;
    let cores = |f: fn(&Look) -> u64| f(&after).saturating_sub(f(&before)) as f64 / 1e9 / seconds;
    let (server, viewers, camera) = (cores(|l| l.server.cpu_ns), cores(|l| l.viewers_ns), cores(|l| l.camera_ns));
    let busy = cores(|l| l.machine_ns);
    let mut errors: Vec<String> = report.viewers.iter().filter_map(|v| v.error.clone()).collect();
    let failed = errors.len();
    errors.truncate(3);
    let keys = report.viewers.iter().filter_map(|v| v.seen.first_key_ms).collect();
    Ok(Row {
        server: kind,
        n,
        udp,
        repeat,
        cpu_ms: server * 1e3 / n as f64,
        cores: server,
        p50_ms: report.latency_ms.p50,
        p99_ms: report.latency_ms.p99,
        freeze_ms: report.viewers.iter().map(|v| v.seen.freeze_ms).fold(0.0, f64::max),
        idle_rss_mb: idle.rss as f64 / 1e6,
        rss_mb: rss.max(after.server.rss) as f64 / 1e6,
        threads: after.server.threads,
        fds: after.server.fds,
        switches: after.server.switches.saturating_sub(before.server.switches) as f64 / seconds,
        start_ms: running.start_ms,
        first_key_ms: crate::plan::Quantiles::of(keys).p50,
        failed,
        errors,
        lost_pictures: report.viewers.iter().map(|v| v.seen.missing + v.seen.damaged).sum(),
        camera_sessions: running.camera_sessions(),
        viewers_cores: viewers,
        camera_cores: camera,
        others_cores: (busy - server - viewers - camera).max(0.0),
        window_s: seconds,
        contended: false,
    })
}

/// CPU counters of everybody at one time.
struct Look {
    at_us: u64,
    server: Sample,
    viewers_ns: u64,
    camera_ns: u64,
    machine_ns: u64,
}

impl Look {
    fn now(running: &Running, load: &Load) -> Self {
        Self {
            at_us: now_us(),
            server: process::sample(running.pid()),
            viewers_ns: process::sample(load.pid()).cpu_ns,
            camera_ns: running.camera_pid().map_or(0, |pid| process::sample(pid).cpu_ns),
            machine_ns: process::machine_busy_ns(),
        }
    }
}
