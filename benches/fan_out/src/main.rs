//! `fan-out`: see `benches/README.md`, or `fan-out --help`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use fan_out::clip::{Clip, Packer, Spec};
use fan_out::machine::Machine;
use fan_out::modes::{self, Context, compare, stall};
use fan_out::run::Timing;
use fan_out::server::{Env, Kind};
use fan_out::{camera, child, viewers};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Measures fan-out on loopback: Fanlight beside a bare floor, gstreamer-rtsp-server, the webrtc crate and webrtcbin.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// CPU, latency and memory for growing numbers of viewers, all servers interleaved
    Bench {
        #[command(flatten)]
        common: Common,
        /// Numbers of viewers; the largest is the one with targets
        #[arg(long, value_delimiter = ',', default_value = "1,10,50,100,300")]
        viewers: Vec<usize>,
        /// Repeats of every row
        #[arg(long, default_value_t = 3)]
        repeats: usize,
        /// Repeats of the rows with targets
        #[arg(long, default_value_t = 5)]
        target_repeats: usize,
        /// Measured seconds of a row
        #[arg(long, default_value_t = 15.0)]
        seconds: f64,
        /// Viewers over UDP
        #[arg(long)]
        udp: bool,
        /// A row during which the rest of the machine used more cores is repeated
        #[arg(long, default_value_t = 0.3)]
        max_others: f64,
        /// How often
        #[arg(long, default_value_t = 4)]
        retries: usize,
        /// A look at whether everything works: few viewers, short rows, one repeat, no word on targets to be trusted
        #[arg(long)]
        quick: bool,
    },
    /// CPU and memory of WebRTC viewers, beside RTSP viewers and other implementations, all interleaved
    Webrtc {
        #[command(flatten)]
        common: Common,
        /// Numbers of viewers; the largest is the one with targets
        #[arg(long, value_delimiter = ',', default_value = "1,10,50")]
        viewers: Vec<usize>,
        /// Repeats of every row
        #[arg(long, default_value_t = 3)]
        repeats: usize,
        /// Measured seconds of a row
        #[arg(long, default_value_t = 6.0)]
        seconds: f64,
        /// A row during which the rest of the machine used more cores is repeated
        #[arg(long, default_value_t = 0.4)]
        max_others: f64,
        /// How often
        #[arg(long, default_value_t = 2)]
        retries: usize,
        /// A look at whether everything works
        #[arg(long)]
        quick: bool,
    },
    /// 50 viewers, and others that join and leave every second, for minutes
    Soak {
        #[command(flatten)]
        common: Common,
        /// How long
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
        /// All viewers over TCP
        #[arg(long)]
        tcp_only: bool,
    },
    /// Viewers that stop reading for a while and go on
    Stall {
        #[command(flatten)]
        common: Common,
        /// All viewers
        #[arg(long, default_value_t = 50)]
        viewers: usize,
        /// How many of them stall; a run for each number
        #[arg(long, value_delimiter = ',', default_value = "1,5")]
        stalled: Vec<usize>,
        /// For how long, in seconds
        #[arg(long, default_value_t = 30)]
        seconds: u64,
        /// Receive buffer of the stalled ones in bytes
        #[arg(long, default_value_t = 65_536)]
        receive_buffer: usize,
    },
    /// Time to the first whole key picture for viewers that join at random phases of a GOP (4 s unless said otherwise)
    Join {
        #[command(flatten)]
        common: Common,
        /// How many
        #[arg(long, default_value_t = 40)]
        joins: usize,
    },
    /// How soon Chromium shows the camera's page moving, and how late the pictures are (GOP 4 s unless said otherwise)
    Browser {
        #[command(flatten)]
        common: Common,
        /// How often
        #[arg(long, default_value_t = 20)]
        starts: usize,
    },
    /// Where a server's CPU time goes, by `perf record`
    Profile {
        #[command(flatten)]
        common: Common,
        /// Viewers; 50 where they are WebRTC's
        #[arg(long)]
        viewers: Option<usize>,
        /// Recorded seconds
        #[arg(long, default_value_t = 15)]
        seconds: u64,
    },
    #[command(hide = true)]
    Camera { clip: PathBuf, fps: u32, limit: usize },
    #[command(hide = true)]
    Viewers,
}

#[derive(Args)]
struct Common {
    /// What to measure
    #[arg(long, value_delimiter = ',')]
    servers: Vec<Kind>,
    /// The gateway; otherwise target/release/fanlight, or beside this program
    #[arg(long)]
    fanlight: Option<PathBuf>,
    /// Where results go; otherwise benches/results, and target/bench for what is only tried
    #[arg(long)]
    results: Option<PathBuf>,
    /// The clip's size in pixels
    #[arg(long, default_value = "1280x720")]
    size: String,
    /// Its bit rate in kbit/s
    #[arg(long, default_value_t = 2000)]
    kbps: u32,
    /// Its pictures a second
    #[arg(long, default_value_t = 25)]
    fps: u32,
    /// Its key picture interval in seconds
    #[arg(long)]
    gop: Option<u32>,
}

impl Common {
    fn context(&self, gop: u32, trial: bool) -> Result<Context> {
        self.with(gop, trial, false)
    }

    fn with(&self, gop: u32, trial: bool, numbered: bool) -> Result<Context> {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let repository = package.ancestors().nth(2).context("the package has moved")?;
        let folder = repository.join("target/bench");
        let gop_seconds = self.gop.unwrap_or(gop);
        let spec = Spec { size: self.size.clone(), fps: self.fps, kbps: self.kbps, gop_seconds, numbered };
        let clip = spec.ensure(&folder)?;
        let beside = child::sibling("fanlight")?;
        let built = if beside.exists() { beside } else { repository.join("target/release/fanlight") };
        let fanlight = self.fanlight.clone().unwrap_or(built);
        let kept = if trial { folder.join("results") } else { repository.join("benches/results") };
        let line = format!(
            "Clip: H.264 {}, {} fps, {} kbit/s, a key picture every {gop_seconds} s, no B-frames.",
            self.size, self.fps, self.kbps
        );
        Ok(Context {
            env: Env { clip, fps: self.fps, gop_seconds, fanlight, folder },
            results: self.results.clone().unwrap_or(kept),
            machine: Machine::look(repository),
            clip: line,
        })
    }

    fn servers(&self, default: &[Kind]) -> Vec<Kind> {
        if self.servers.is_empty() { default.to_vec() } else { self.servers.clone() }
    }
}

fn main() -> Result<ExitCode> {
    // a viewer over UDP takes three descriptors, and the children inherit the limit
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).context("descriptor limit")?;
    let met = match Cli::parse().command {
        Command::Bench { common, viewers, repeats, target_repeats, seconds, udp, max_others, retries, quick } => {
            let servers = common.servers(&[Kind::Camera, Kind::Floor, Kind::Rival, Kind::Fanlight]);
            let timing = Timing { idle_s: 3.0, settle_s: 3.0, window_s: seconds };
            let full = compare::Options { servers, viewers, repeats, target_repeats, timing, udp, max_others, retries };
            let options = if quick {
                let timing = Timing { idle_s: 2.5, settle_s: 1.0, window_s: 3.0 };
                compare::Options { viewers: vec![1, 10, 50], repeats: 1, target_repeats: 1, timing, retries: 0, ..full }
            } else {
                full
            };
            compare::run(&common.context(2, quick)?, &options)?
        }
        Command::Webrtc { common, viewers, repeats, seconds, max_others, retries, quick } => {
            let servers = common.servers(&[Kind::Fanlight, Kind::FanlightWebrtc, Kind::WebrtcCrate, Kind::Webrtcbin]);
            let mut options = compare::Options {
                servers,
                viewers,
                repeats,
                target_repeats: repeats,
                timing: Timing { idle_s: 2.5, settle_s: 2.5, window_s: seconds },
                udp: false,
                max_others,
                retries,
            };
            if quick {
                let timing = Timing { idle_s: 2.5, settle_s: 1.0, window_s: 3.0 };
                options = compare::Options { viewers: vec![1, 10], repeats: 1, timing, retries: 0, ..options };
            }
            modes::webrtc::run(&common.context(2, quick)?, &options)?
        }
        Command::Soak { common, minutes, tcp_only } => {
            let servers = common.servers(&[Kind::Fanlight]);
            let mut met = true;
            for kind in servers {
                met &= modes::soak::run(&common.context(2, minutes < 10.0)?, kind, minutes, !tcp_only)?;
            }
            met
        }
        Command::Stall { common, viewers, stalled, seconds, receive_buffer } => {
            let options = stall::Options { viewers, stalled, seconds, receive_buffer };
            stall::run(&common.context(2, seconds < 30)?, &common.servers(&[Kind::Fanlight]), &options)?
        }
        Command::Join { common, joins } => {
            modes::join::run(&common.context(4, joins < 40)?, &common.servers(&[Kind::Rival, Kind::Fanlight]), joins)?
        }
        Command::Browser { common, starts } => {
            let servers = common.servers(&[Kind::WebrtcCrate, Kind::FanlightWebrtc]);
            modes::browser::run(&common.with(4, starts < 20, true)?, &servers, starts)?
        }
        Command::Profile { common, viewers, seconds } => {
            for kind in common.servers(&[Kind::Fanlight]) {
                let viewers = viewers.unwrap_or(if kind.is_webrtc() { 50 } else { 300 });
                modes::profile::run(&common.context(2, true)?, kind, viewers, seconds)?;
            }
            true
        }
        Command::Camera { clip, fps, limit } => {
            camera::serve(Packer::new(Clip::load(&clip, fps)?), child::listen()?, limit)?;
            true
        }
        Command::Viewers => {
            let mut plan = String::new();
            std::io::stdin().read_to_string(&mut plan)?;
            child::say(&serde_json::to_value(viewers::run(serde_json::from_str(&plan)?)?)?);
            true
        }
    };
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
