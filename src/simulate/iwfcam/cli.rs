//! `fanlight simulate iwfcam`.

use super::{Camera, Counters, Faults, Options, Scene, Shown, Sound, bars, footage};
use crate::ingest::iwfcam::wire::{DISCOVERY_PORT, Ids, Token};
use crate::simulate::rtsp::Footage;
use crate::simulate::{SimulateError, duration, report};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How the simulated camera is, by command line.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What it shows: MP4, Matroska, or raw H.264 [default: bars that move, 640x480]
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Show the demo's street instead of bars
    #[arg(long, conflicts_with = "file")]
    pub street: bool,
    /// Show the JPEG files of a folder, in the order of their names
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["file", "street"])]
    pub pictures: Option<PathBuf>,
    /// So many cameras that are alike, at this address and those after it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub count: u8,
    /// Where to listen, on both ports; several cameras take 127.0.0.21, 127.0.0.22 and so on
    #[arg(long, value_name = "ADDRESS", default_value_t = Ipv4Addr::LOCALHOST)]
    pub address: Ipv4Addr,
    /// UDP port for searches
    #[arg(long, value_name = "PORT", default_value_t = DISCOVERY_PORT)]
    pub discovery_port: u16,
    /// UDP port for login and media
    #[arg(long, value_name = "PORT", default_value_t = 17_900)]
    pub media_port: u16,
    /// Also hear searches that are broadcast to this address, as 127.255.255.255
    #[arg(long, value_name = "ADDRESS")]
    pub broadcast: Option<Ipv4Addr>,
    /// Its name for good
    #[arg(long, default_value = "DEMO001-0011223344AB-1A2B3C")]
    pub uid: String,
    /// The 12 hexadecimal digits that a client must send
    #[arg(long, default_value = Token::NO_PASSWORD, value_parser = token)]
    pub token: String,
    /// Numbers that a client must quote, as of a camera that has called home: three, with commas
    #[arg(long, value_name = "ID0,ID1,ID2", value_parser = ids)]
    pub ids: Option<Ids>,
    /// Places for clients
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub slots: u32,
    /// A client that is not heard for so long is dropped
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "6s")]
    pub slot_timeout: Duration,
    /// Pictures per second [default: 15, or those of the footage]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=60))]
    pub fps: Option<u32>,
    /// It has no microphone
    #[arg(long)]
    pub no_audio: bool,
    /// It leaves out the 16 bytes before a picture that tell how long it is
    #[arg(long)]
    pub no_head: bool,
    /// Its clock is not filled in
    #[arg(long)]
    pub no_clock: bool,
    /// Blocks of sound go on from the one before
    #[arg(long)]
    pub running_adpcm: bool,
    /// The number before its first picture's, as 65500 to see numbers wrap
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub first_number: u16,
    /// It sends pieces again when it is asked to
    #[arg(long)]
    pub answer_missing: bool,
    /// Fault: so many copies of the login and of each command are not heard
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub ignore_first: u32,
    /// Fault: so many searches are not heard
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub ignore_searches: u32,
    /// Fault: datagrams lost, percent
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = percent)]
    pub loss: f64,
    /// Fault: pieces that come 1 to 4 datagrams late, percent
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = percent)]
    pub reorder: f64,
    /// Fault: pieces that come twice, percent
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = percent)]
    pub duplicate: f64,
    /// Fault: datagrams that are no messages, percent
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = percent)]
    pub malformed: f64,
    /// Which datagrams: the same number does the same
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Fault: it restarts so often
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub reboot_every: Option<Duration>,
    /// How long a restart takes
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "4s", requires = "reboot_every")]
    pub reboot_takes: Duration,
}

fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "a percentage is a number such as 5 or 0.5")?;
    if (0.0..=100.0).contains(&number) { Ok(number / 100.0) } else { Err("from 0 to 100".into()) }
}

fn token(text: &str) -> Result<String, String> {
    Token::from_digits(text).map(|_| text.to_owned()).ok_or_else(|| "12 hexadecimal digits are needed".into())
}

fn ids(text: &str) -> Result<Ids, String> {
    let numbers: Result<Vec<u32>, _> = text.split(',').map(|number| number.trim().parse()).collect();
    let numbers = numbers.ok().and_then(|numbers| numbers.try_into().ok());
    numbers.map(Ids).ok_or_else(|| "three numbers are needed, as 1,2,3".into())
}

impl Args {
    /// The camera asked for, but for what it shows.
    pub fn options(&self) -> Options {
        Options {
            address: self.address,
            discovery_port: self.discovery_port,
            media_port: self.media_port,
            broadcast: self.broadcast,
            uid: self.uid.clone(),
            ids: self.ids.unwrap_or_default(),
            token: self.token.clone(),
            slots: self.slots,
            slot_timeout: self.slot_timeout,
            no_audio: self.no_audio,
            no_head: self.no_head,
            no_clock: self.no_clock,
            first_number: self.first_number,
            answer_missing: self.answer_missing,
            ignore_first: self.ignore_first,
            ignore_searches: self.ignore_searches,
            faults: Faults {
                loss: self.loss,
                reorder: self.reorder,
                duplicate: self.duplicate,
                malformed: self.malformed,
                seed: self.seed,
            },
            ..Options::default()
        }
    }

    /// Switches them on. Blocks while footage is read.
    fn start(&self) -> Result<Vec<Camera>, SimulateError> {
        let mut options = self.options();
        let shown = match &self.file {
            Some(file) => Some(Footage::File(file.clone())),
            None if self.street => Some(Footage::Street),
            None => None,
        };
        let (scene, sound) = match (shown, &self.pictures) {
            (Some(shown), _) => {
                let Shown { scene, fps, samples } = footage(&shown)?;
                options.fps = fps;
                options.no_audio |= samples.is_empty();
                (scene, Sound::new(samples, self.running_adpcm))
            }
            (None, Some(folder)) => (pictures(folder)?, Sound::tone(self.running_adpcm)),
            (None, None) => (bars(options.width, options.height)?, Sound::tone(self.running_adpcm)),
        };
        (options.width, options.height) = scene.size();
        options.fps = self.fps.unwrap_or(options.fps);
        (0..self.count).map(|n| Camera::start(nth(&options, n), scene.clone(), sound.clone())).collect()
    }
}

/// The camera that comes so many addresses after the first.
fn nth(first: &Options, n: u8) -> Options {
    let address = Ipv4Addr::from(u32::from(first.address).wrapping_add(n.into()));
    let uid = if n == 0 { first.uid.clone() } else { format!("{}-{n}", first.uid) };
    let faults = Faults { seed: first.faults.seed.wrapping_add(n.into()), ..first.faults };
    Options { address, uid, faults, ..first.clone() }
}

/// The JPEG files of a folder, in the order of their names.
fn pictures(folder: &Path) -> Result<Scene, SimulateError> {
    let fault = |text: &str| SimulateError::Footage { footage: folder.display().to_string(), text: text.into() };
    let entries: Result<Vec<_>, _> =
        std::fs::read_dir(folder).and_then(Iterator::collect).map_err(SimulateError::System);
    let mut files: Vec<_> = entries?.into_iter().map(|entry: std::fs::DirEntry| entry.path()).collect();
    let jpeg = |file: &PathBuf| file.extension().is_some_and(|kind| kind == "jpg" || kind == "jpeg");
    files.retain(jpeg);
    files.sort();
    let bytes: Result<Vec<_>, _> = files.iter().map(std::fs::read).collect();
    Scene::new(bytes.map_err(SimulateError::System)?).ok_or_else(|| fault("no JPEG files, or some that are none"))
}

/// Runs cameras until `cancel` is cancelled and writes what happens to standard output, one JSON object a line.
///
/// # Errors
/// What keeps a camera from starting.
pub async fn run(args: Args, cancel: CancellationToken) -> Result<(), SimulateError> {
    let (every, takes) = (args.reboot_every, args.reboot_takes);
    let start = tokio::task::spawn_blocking(move || args.start());
    let cameras = start.await.map_err(|error| SimulateError::System(error.into()))??;
    for camera in &cameras {
        let (address, port) = (camera.media().ip().to_string(), camera.media().port());
        report(&serde_json::json!({ "event": "started", "address": address, "media_port": port }));
    }
    futures::future::join_all(cameras.iter().map(|camera| follow(camera, every, takes, &cancel))).await;
    Ok(())
}

/// Tells what happens at a camera, and restarts it as often as was asked for.
async fn follow(camera: &Camera, reboot_every: Option<Duration>, reboot_takes: Duration, cancel: &CancellationToken) {
    let address = camera.media().ip().to_string();
    let mut changes = camera.watch();
    let mut before = Counters::default();
    let mut reboots = tokio::time::interval(reboot_every.unwrap_or(Duration::from_secs(1)));
    reboots.tick().await;
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            _ = reboots.tick(), if reboot_every.is_some() => {
                camera.reboot(reboot_takes);
                report(&serde_json::json!({ "event": "rebooting", "address": address }));
            }
            changed = changes.changed() => if changed.is_err() { break },
        }
        let now = *changes.borrow_and_update();
        if let Some(event) = name(&before, &now) {
            report(&serde_json::json!({ "event": event, "address": address, "counters": now }));
            before = now;
        }
    }
    report(&serde_json::json!({ "event": "stopped", "address": address, "counters": camera.counters() }));
}

/// What happened that is worth a line: not every picture.
fn name(before: &Counters, now: &Counters) -> Option<&'static str> {
    if now.never > before.never {
        Some("forbidden")
    } else if now.refused > before.refused {
        Some("refused")
    } else if now.logins > before.logins {
        Some("login")
    } else if now.clients < before.clients {
        Some("gone")
    } else if now.searches > before.searches {
        Some("search")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Ok(Program::try_parse_from(std::iter::once("iwfcam").chain(line.split_whitespace()))?.args)
    }

    #[test]
    fn every_option_is_understood() {
        let args = parse(
            "--address 127.0.0.21 --broadcast 127.255.255.255 --uid A-1 --ids 1,0,3 --slots 1 --slot-timeout 2s --no-audio \
             --no-head --no-clock --running-adpcm --first-number 65500 --answer-missing --ignore-first 1 \
             --ignore-searches 2 --loss 5 --reorder 3 \
             --duplicate 3 --malformed 0.5 --seed 7 --reboot-every 30s --reboot-takes 2s --token 6ddd60335190 --fps 25",
        )
        .unwrap();
        let options = args.options();
        assert_eq!((options.slots, options.ids, options.first_number), (1, Ids([1, 0, 3]), 65_500));
        assert_eq!((options.ignore_first, options.ignore_searches), (1, 2));
        let faults = Faults { loss: 0.05, reorder: 0.03, duplicate: 0.03, malformed: 0.005, seed: 7 };
        assert_eq!(options.faults, faults);
        assert!(parse("").is_ok());
        for wrong in [
            "--loss 101",
            "--loss x",
            "--ids 1,2",
            "--token abc",
            "--slots 9",
            "--reboot-takes 2s",
            "--count 0",
            "--street --pictures x",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_what_is_worth_a_line_is_told() {
        let none = Counters::default();
        assert_eq!(name(&none, &Counters { pictures: 9, ..none }), None);
        assert_eq!(name(&none, &Counters { logins: 1, searches: 1, ..none }), Some("login"));
        assert_eq!(name(&none, &Counters { never: 1, ..none }), Some("forbidden"));
        assert_eq!(name(&Counters { clients: 1, ..none }, &none), Some("gone"));
    }

    #[tokio::test]
    async fn several_cameras_show_the_files_of_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let scene = bars(64, 48).unwrap();
        for (name, n) in [("b.jpg", 1), ("a.jpeg", 0), ("c.txt", 2)] {
            std::fs::write(folder.path().join(name), scene.picture(n)).unwrap();
        }
        let path = folder.path().display();
        let line = format!("--pictures {path} --count 3 --address 127.0.4.101 --discovery-port 0 --media-port 0");
        let cameras = parse(&line).unwrap().start().unwrap();
        let at: Vec<_> = cameras.iter().map(|camera| camera.media().ip().octets()[3]).collect();
        assert_eq!(at, [101, 102, 103]);
        let shown = cameras[2].scene();
        assert_eq!((shown.size(), shown.picture(0)[20..].to_vec()), ((64, 48), shown.picture(2)[20..].to_vec()));
        assert_ne!(shown.picture(0)[20..], shown.picture(1)[20..]);
        std::fs::remove_file(folder.path().join("a.jpeg")).unwrap();
        std::fs::write(folder.path().join("b.jpg"), b"none").unwrap();
        assert!(matches!(parse(&line).unwrap().start(), Err(SimulateError::Footage { .. })));
        let (first, second) = (nth(&Options::default(), 0), nth(&Options::default(), 1));
        assert!(first.uid != second.uid && second.uid.len() <= 32);
    }
}
