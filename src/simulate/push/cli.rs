//! `fanlight simulate push`.

use super::{Fault, Form, Options, Pusher};
use crate::simulate::iwfcam::{self, Scene};
use crate::simulate::rtsp::Footage;
use crate::simulate::{SimulateError, duration, report};
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use url::Url;

/// What the simulated camera pushes, by command line.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where to: http://HOST:PORT/v1/cameras/NAME/push, or ftp://NAME@HOST:PORT/FOLDER
    #[arg(value_name = "URL", value_parser = target)]
    pub to: Url,
    /// The camera's token
    #[arg(long, env = "FANLIGHT_PUSH_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// How pictures are sent by HTTP
    #[arg(long = "as", value_enum, value_name = "FORM", default_value_t = Form::Raw)]
    pub form: Form,
    /// From one picture to the next
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s")]
    pub every: Duration,
    /// Ends after so many pictures
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// What it shows: MP4, Matroska, or raw H.264 [default: the demo's street]
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Show bars that move instead
    #[arg(long, conflicts_with = "file")]
    pub bars: bool,
    /// Fault: what is wrong with pictures
    #[arg(long, value_enum)]
    pub fault: Option<Fault>,
    /// So many pictures from one with the fault to the next
    #[arg(long, value_name = "N", default_value_t = 1, requires = "fault", value_parser = clap::value_parser!(u64).range(1..))]
    pub fault_every: u64,
}

fn target(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    match url.scheme() {
        "http" => Ok(url),
        "ftp" if !url.username().is_empty() => Ok(url),
        "ftp" => Err("the camera's name is missing: ftp://NAME@HOST:PORT".into()),
        _ => Err("expected a URL that begins with http:// or ftp://".into()),
    }
}

impl Args {
    /// What is asked for, but for what it shows.
    pub fn options(&self) -> Options {
        Options {
            token: self.token.clone(),
            form: self.form,
            every: self.every,
            fault: self.fault,
            fault_every: self.fault_every,
            count: self.count,
            ..Options::new(self.to.clone())
        }
    }

    /// What it shows, and how many pictures of that make a second. Blocks while footage is read.
    fn scene(&self) -> Result<(Scene, u32), SimulateError> {
        if self.bars {
            return Ok((iwfcam::bars(640, 480)?, 10));
        }
        let footage = self.file.clone().map_or(Footage::Street, Footage::File);
        let shown = iwfcam::footage(&footage)?;
        Ok((shown.scene, shown.fps))
    }
}

/// Pushes until `cancel` is cancelled, or all is sent, and writes what is answered to standard output, one JSON object a
/// line.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(args: Args, cancel: CancellationToken) -> Result<(), SimulateError> {
    let options = args.options();
    let scene = tokio::task::spawn_blocking(move || args.scene());
    let (scene, fps) = scene.await.map_err(|error| SimulateError::System(error.into()))??;
    report(&serde_json::json!({ "event": "started" }));
    let pusher = Pusher::start(Options { fps, ..options }, scene);
    let mut counters = pusher.watch();
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            changed = counters.changed() => if changed.is_err() { break },
        }
        let now = counters.borrow_and_update().clone();
        report(&serde_json::json!({ "event": "pushed", "counters": now }));
    }
    let now = counters.borrow().clone();
    report(&serde_json::json!({ "event": "stopped", "counters": now }));
    Ok(())
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
        Ok(Program::try_parse_from(std::iter::once("push").chain(line.split_whitespace()))?.args)
    }

    #[test]
    fn every_option_is_understood() {
        let line = "http://127.0.0.1:8484/v1/cameras/yard/push --token abc --as multipart --every 500ms --count 3 --bars \
                    --fault truncated --fault-every 2";
        let options = parse(line).unwrap().options();
        assert_eq!(
            (options.form, options.every, options.count),
            (Form::Multipart, Duration::from_millis(500), Some(3))
        );
        assert_eq!((options.fault, options.fault_every), (Some(Fault::Truncated), 2));
        assert_eq!(parse("ftp://yard@127.0.0.1:2121/2026").unwrap().to.username(), "yard");
        for wrong in
            ["", "ftp://127.0.0.1", "https://x/y", "nonsense", "http://x/ --fault-every 2", "http://x/ --as xml"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
