//! `fanlight simulate http`.

use super::{Camera, Counters, Faults, Login, Options, Scheme};
use crate::simulate::iwfcam::{Scene, Shown, footage};
use crate::simulate::rtsp::Footage;
use crate::simulate::{SimulateError, duration, report};
use std::net::SocketAddr;
use std::path::PathBuf;
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
    /// Where to listen: /video is the stream, /snapshot.jpg one picture
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    pub listen: SocketAddr,
    /// Speak TLS, with a self-made certificate
    #[arg(long)]
    pub https: bool,
    /// Ask for this user name
    #[arg(long, value_name = "NAME", requires = "password")]
    pub user: Option<String>,
    /// And for this password
    #[arg(long, value_name = "PASSWORD", requires = "user")]
    pub password: Option<String>,
    /// How to ask for them
    #[arg(long, value_enum, default_value = "digest")]
    pub login: Scheme,
    /// Digest: after so many requests the nonce is too old; 0 is never
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub nonce_lasts: u32,
    /// Pictures per second, as 15 or 0.2 [default: 10, or those of the footage]
    #[arg(long, value_name = "N", value_parser = rate)]
    pub fps: Option<f64>,
    /// Streams at once; who comes then gets 503
    #[arg(long, value_name = "N")]
    pub max_clients: Option<usize>,
    /// Fault: a stream falls silent after so long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub stall_after: Option<Duration>,
    /// Fault: a stream is cut off in mid-picture after so long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub close_after: Option<Duration>,
    /// Fault: the second half of each so-many-th picture is missing
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub truncate_every: Option<u64>,
    /// Fault: parts of the stream say nothing of their length
    #[arg(long)]
    pub no_length: bool,
    /// Fault: another boundary than the one that is announced
    #[arg(long)]
    pub wrong_boundary: bool,
    /// Fault: lines of the stream end with LF alone
    #[arg(long)]
    pub lf_only: bool,
    /// Fault: every answer is this status, as 503
    #[arg(long, value_name = "STATUS", value_parser = clap::value_parser!(u16).range(400..600))]
    pub status: Option<u16>,
    /// Fault: /snapshot.jpg has no ETag and is sent again and again
    #[arg(long)]
    pub no_etag: bool,
    /// Fault: /snapshot.jpg takes so long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub slow: Option<Duration>,
    /// Fault: /snapshot.jpg closes the connection after each answer
    #[arg(long)]
    pub close: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| (0.001..=120.0).contains(rate));
    rate.ok_or_else(|| "from 0.001 to 120 pictures a second".into())
}

impl Args {
    /// The camera asked for, but for what it shows.
    pub fn options(&self) -> Options {
        let login = self.user.clone().zip(self.password.clone()).map(|(user, password)| Login {
            user,
            password,
            scheme: self.login,
            nonce_lasts: self.nonce_lasts,
        });
        Options {
            listen: self.listen,
            https: self.https,
            login,
            fps: self.fps.unwrap_or(Options::default().fps),
            max_clients: self.max_clients,
            faults: Faults {
                stall_after: self.stall_after,
                close_after: self.close_after,
                truncate_every: self.truncate_every,
                no_length: self.no_length,
                wrong_boundary: self.wrong_boundary,
                lf_only: self.lf_only,
                status: self.status,
                no_etag: self.no_etag,
                slow: self.slow,
                close: self.close,
            },
        }
    }

    /// What it shows, and its pictures per second. Blocks while footage is read.
    fn scene(&self) -> Result<(Scene, f64), SimulateError> {
        let shown = match &self.file {
            Some(file) => Footage::File(file.clone()),
            None if self.street => Footage::Street,
            None => return Ok((Scene::bars(640, 480, 30)?, Options::default().fps)),
        };
        let Shown { scene, fps, .. } = footage(&shown)?;
        Ok((scene, fps.into()))
    }
}

/// Runs a camera until `cancel` is cancelled and writes what happens to standard output, one JSON object a line.
///
/// # Errors
/// What keeps the camera from starting.
pub async fn run(args: Args, cancel: CancellationToken) -> Result<(), SimulateError> {
    let mut options = args.options();
    let given = args.fps;
    let scene = tokio::task::spawn_blocking(move || args.scene()).await;
    let (scene, fps) = scene.map_err(|error| SimulateError::System(error.into()))??;
    options.fps = given.unwrap_or(fps);
    let camera = Camera::start(options, scene).await?;
    let fingerprint = camera.fingerprint().map(|fingerprint| fingerprint.to_string());
    report(&serde_json::json!({
        "event": "started", "video": camera.url("/video"), "snapshot": camera.url("/snapshot.jpg"),
        "fingerprint": fingerprint,
    }));
    let mut changes = camera.watch();
    let mut before = Counters::default();
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            changed = changes.changed() => if changed.is_err() { break },
        }
        let now = *changes.borrow_and_update();
        if let Some(event) = name(&before, &now) {
            report(&serde_json::json!({ "event": event, "counters": now }));
            before = now;
        }
    }
    report(&serde_json::json!({ "event": "stopped", "counters": camera.counters() }));
    Ok(())
}

/// What happened that is worth a line: not every picture.
fn name(before: &Counters, now: &Counters) -> Option<&'static str> {
    if now.refused > before.refused {
        Some("refused")
    } else if now.streams > before.streams {
        Some("stream")
    } else if now.connections > before.connections {
        Some("connection")
    } else if now.open < before.open {
        Some("gone")
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
        Ok(Program::try_parse_from(std::iter::once("http").chain(line.split_whitespace()))?.args)
    }

    #[test]
    fn every_option_is_understood() {
        let args = parse(
            "--listen 127.0.0.9:0 --https --user ann --password x --login basic --nonce-lasts 3 --fps 0.5 --max-clients 1 \
             --stall-after 1s --close-after 2s --truncate-every 5 --no-length --wrong-boundary --lf-only --status 503 \
             --no-etag --slow 2s --close",
        )
        .unwrap();
        let options = args.options();
        assert!(options.https && options.fps == 0.5 && options.max_clients == Some(1));
        let login = Login { user: "ann".into(), password: "x".into(), scheme: Scheme::Basic, nonce_lasts: 3 };
        assert_eq!(options.login, Some(login));
        let faults = Faults {
            stall_after: Some(Duration::from_secs(1)),
            close_after: Some(Duration::from_secs(2)),
            truncate_every: Some(5),
            no_length: true,
            wrong_boundary: true,
            lf_only: true,
            status: Some(503),
            no_etag: true,
            slow: Some(Duration::from_secs(2)),
            close: true,
        };
        assert_eq!(options.faults, faults);
        assert!(parse("").unwrap().options().login.is_none());
        for wrong in ["--fps 0", "--fps x", "--user ann", "--password x", "--truncate-every 0", "--status 200"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_what_is_worth_a_line_is_told() {
        let none = Counters::default();
        assert_eq!(name(&none, &Counters { pictures: 9, requests: 2, ..none }), None);
        assert_eq!(name(&none, &Counters { refused: 1, streams: 1, ..none }), Some("refused"));
        assert_eq!(name(&none, &Counters { streams: 1, ..none }), Some("stream"));
        assert_eq!(name(&Counters { open: 1, ..none }, &none), Some("gone"));
    }
}
