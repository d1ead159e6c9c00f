//! What cameras that send JPEG cost: 20 simulated ones of 640x480 at 15 pictures a second, with nobody watching, with one
//! and with three H.264 viewers each, beside bare GStreamer pipelines that encode the same pictures. `--help` says more.

mod pictures;
mod stage;
mod viewers;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};
use harness::child::{Process, sibling};
use harness::machine::Machine;
use harness::process::{machine_busy_ns, sample};
use harness::table::{self, Verdict, median, spread};
use pictures::{FPS, Pictures, SIZE};
use serde::Serialize;
use stage::{Env, Stage};

/// CPU milliseconds per camera and second with nobody watching, at most.
const IDLE: f64 = 8.0;

/// Measures what cameras that send JPEG cost the gateway, beside bare GStreamer pipelines for the same pictures.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Cameras
    #[arg(long, default_value_t = 20)]
    cameras: usize,
    /// Rounds; medians count
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Measured seconds of each part of a round
    #[arg(long, default_value_t = 15.0)]
    seconds: f64,
    /// The gateway; otherwise beside this program, or target/release/fanlight
    #[arg(long)]
    fanlight: Option<PathBuf>,
    /// Where results go; otherwise benches/results, and target/bench/results for what is only tried
    #[arg(long)]
    results: Option<PathBuf>,
    /// A look at whether everything works: one short round, no word on targets to be trusted
    #[arg(long)]
    quick: bool,
}

#[derive(Subcommand)]
enum Command {
    #[command(hide = true)]
    Viewers { server: SocketAddr, cameras: usize, each: usize },
}

/// What one part of a round used.
#[derive(Clone, Copy, Debug, Serialize)]
struct Used {
    /// CPU time in ms per camera and second.
    cpu: f64,
    /// The part of it that children used: the gateway's encoders.
    children: f64,
    /// Pictures that viewers got, per camera and second; of one viewer.
    pictures: f64,
    /// Encoders that ran.
    encoders: usize,
    /// Cores that everything but the measured processes used, viewers and cameras included.
    others: f64,
}

/// One round.
#[derive(Clone, Copy, Debug, Serialize)]
struct Round {
    idle: Used,
    one: Used,
    three: Used,
    bare: Used,
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    if let Some(Command::Viewers { server, cameras, each }) = cli.command {
        viewers::run(server, cameras, each)?;
        return Ok(ExitCode::SUCCESS);
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("the package has moved")?;
    let folder = repository.join("target/bench");
    std::fs::create_dir_all(&folder)?;
    let beside = sibling("fanlight")?;
    let built = if beside.exists() { beside } else { repository.join("target/release/fanlight") };
    let pictures = Pictures::ensure(repository, &folder)?;
    ensure!((1..=100).contains(&cli.cameras), "1 to 100 cameras");
    let env = Env { fanlight: cli.fanlight.unwrap_or(built), folder, pictures, cameras: cli.cameras };
    let (rounds, seconds) = if cli.quick { (1, 4.0) } else { (cli.rounds, cli.seconds) };
    let mut done = Vec::new();
    for n in 0..rounds {
        eprintln!("round {} of {rounds}", n + 1);
        done.push(round(&env, seconds).with_context(|| format!("round {}", n + 1))?);
        eprintln!("{:?}", done.last());
    }
    let kept = if cli.quick { env.folder.join("results") } else { repository.join("benches/results") };
    let verdicts = verdicts(env.cameras, &done);
    let page = page(&Machine::look(repository), &env, &done, &verdicts, seconds);
    Machine::look(repository).keep(&cli.results.unwrap_or(kept), "jpeg-cameras", &page, &done)?;
    Ok(if verdicts.iter().all(|verdict| verdict.pass) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All parts, one after the other, on fresh processes.
fn round(env: &Env, seconds: f64) -> Result<Round> {
    let mut stage = Stage::start(env)?;
    settle(3.0);
    let gateway = stage.gateway.pid();
    let idle = used(env, &[gateway], seconds, None, 0)?;
    ensure!(stage.encoders() == 0, "{} encoders run for nobody", stage.encoders());
    let watched = |each: usize| -> Result<Used> {
        let mut viewers = Viewers(stage.viewers(env, each)?);
        settle(4.0);
        let mut used = used(env, &[gateway], seconds, Some(&mut viewers), each)?;
        used.encoders = stage.encoders();
        Ok(used)
    };
    let (one, three) = (watched(1)?, watched(3)?);
    ensure!(!stage.cameras.ended(), "the cameras ended: {}", stage.cameras.log_tail());
    drop(stage);
    let bare = stage::bare(env)?;
    settle(4.0);
    let pids: Vec<u32> = bare.iter().map(Process::pid).collect();
    let used = used(env, &pids, seconds, None, 0)?;
    let mut bare = bare;
    ensure!(bare.iter_mut().all(|process| !process.ended()), "a bare pipeline ended: {}", bare[0].log_tail());
    Ok(Round { idle, one, three, bare: used })
}

fn settle(seconds: f64) {
    std::thread::sleep(Duration::from_secs_f64(seconds));
}

/// Viewers that play.
struct Viewers(Process);

impl Viewers {
    /// Pictures so far, all of them together.
    fn pictures(&mut self) -> Result<f64> {
        self.0.say("count")?;
        let line = self.0.line(Duration::from_secs(10))?;
        line["pictures"].as_f64().context("no number of pictures")
    }
}

fn used(env: &Env, pids: &[u32], seconds: f64, mut viewers: Option<&mut Viewers>, each: usize) -> Result<Used> {
    let cpu = || pids.iter().map(|pid| sample(*pid).cpu_ns).sum::<u64>();
    // None starts or ends meanwhile, or the number of pictures would show it.
    let below = || pids.iter().flat_map(|pid| stage::children(*pid)).map(|pid| sample(pid).cpu_ns).sum::<u64>();
    let mut pictures = || viewers.as_mut().map_or(Ok(0.0), |viewers| viewers.pictures());
    let (begin, cpu_before, below_before) = (Instant::now(), cpu(), below());
    let (busy_before, seen_before) = (machine_busy_ns(), pictures()?);
    settle(seconds);
    let (cpu_after, below_after, busy_after, seen_after) = (cpu(), below(), machine_busy_ns(), pictures()?);
    let passed = begin.elapsed().as_secs_f64();
    let own = cpu_after.saturating_sub(cpu_before) as f64;
    let others = (busy_after.saturating_sub(busy_before) as f64 - own).max(0.0) / 1e9 / passed;
    let cameras = env.cameras as f64;
    let viewers = (each.max(1) as f64) * cameras;
    let children = below_after.saturating_sub(below_before) as f64;
    let per_camera = |ns: f64| ns / 1e6 / passed / cameras;
    let pictures = (seen_after - seen_before) / passed / viewers;
    Ok(Used { cpu: per_camera(own), children: per_camera(children), pictures, encoders: 0, others })
}

fn verdicts(cameras: usize, rounds: &[Round]) -> Vec<Verdict> {
    let of = |part: fn(&Round) -> f64| median(rounds.iter().map(part)).unwrap_or(f64::NAN);
    let idle = of(|round| round.idle.cpu);
    let (one, bare) = (of(|round| round.one.cpu), of(|round| round.bare.cpu));
    let ratio = of(|round| round.one.cpu / round.bare.cpu);
    let encoders: Vec<usize> = rounds.iter().flat_map(|round| [round.one.encoders, round.three.encoders]).collect();
    let least = rounds.iter().flat_map(|round| [round.one.pictures, round.three.pictures]).fold(f64::MAX, f64::min);
    vec![
        Verdict::new(
            idle <= IDLE,
            format!("CPU with nobody watching at most {IDLE} ms per camera and second"),
            format!("{idle:.2} ms"),
        ),
        Verdict::new(
            ratio <= 1.0,
            "CPU with one H.264 viewer each at most that of a bare `jpegdec ! x264enc`",
            format!("{one:.1} / {bare:.1} = {ratio:.2}"),
        ),
        Verdict::new(
            encoders.iter().all(|count| *count == cameras),
            "one encoder per camera with 1 and with 3 viewers each",
            format!("{encoders:?}"),
        ),
        Verdict::new(
            least >= f64::from(FPS) * 0.95,
            format!("every viewer gets {FPS} pictures a second (95 % at least)"),
            format!("{least:.2}"),
        ),
    ]
}

fn page(machine: &Machine, env: &Env, rounds: &[Round], verdicts: &[Verdict], seconds: f64) -> String {
    let (width, height) = SIZE;
    let Env { cameras, pictures, .. } = env;
    let row = |name: &str, part: fn(&Round) -> Used| {
        let column = |value: fn(Used) -> f64, digits| spread(rounds.iter().map(|round| value(part(round))), digits);
        let encoders: Vec<String> = rounds.iter().map(|round| part(round).encoders.to_string()).collect();
        vec![
            name.to_owned(),
            column(|used| used.cpu, 2),
            column(|used| used.children, 2),
            column(|used| used.pictures, 2),
            encoders.join(", "),
            column(|used| used.others, 2),
        ]
    };
    let rows = [
        row("gateway, nobody watching", |round| round.idle),
        row("gateway and its encoders, one viewer each", |round| round.one),
        row("gateway and its encoders, three viewers each", |round| round.three),
        row("bare pipelines", |round| round.bare),
    ];
    let head = [
        "",
        "CPU, ms per camera and second",
        "of that, encoders",
        "pictures per viewer and second",
        "encoders",
        "cores used by others",
    ];
    format!(
        "{}{cameras} simulated iwfcam cameras, {width}x{height}, {FPS} fps, JPEG of {} bytes on average from the street \
         footage ({} pictures in a loop), no sound; {} round(s), {seconds} s for each part. The cameras run in one process of \
         their own, the viewers (RTSP over TCP, they only read) in another; neither is counted. Bare: one `gst-launch-1.0` for \
         each camera, `multifilesrc ! jpegdec ! videoconvert ! x264enc ! fakesink sync=true` with the same pictures, rate and \
         settings of the encoder as the gateway's own pipeline.\n\n{}\n{}",
        machine.heading("Cameras that send JPEG"),
        pictures.mean_bytes,
        pictures.count,
        rounds.len(),
        table::verdicts(verdicts),
        table::markdown(&head, &rows),
    )
}
