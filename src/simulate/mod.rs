//! Simulated devices: for the demo, for the tests, and for people who write adapters. Each plays the device's side of
//! its protocol, with faults on request. Nothing else in Fanlight knows that a device is simulated.

pub mod demo;
pub mod http;
pub mod iwfcam;
pub mod mini_doorbell;
pub mod push;
pub mod rtsp;

pub use rtsp::SimulateError;

use std::io::Write;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// `fanlight simulate`: one simulated device in the foreground.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What kind of device.
    #[command(subcommand)]
    pub family: Family,
}

/// The devices that can be simulated.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Family {
    /// An RTSP camera that plays a file in a loop, live: all clients see the same picture
    Rtsp(rtsp::Args),
    /// An IWFCam camera: JPEG pictures and ADPCM sound over UDP
    Iwfcam(iwfcam::Args),
    /// A camera that serves JPEG by HTTP: a multipart stream, and one picture at a time
    Http(http::Args),
    /// Mini doorbells: each uploads one JPEG picture a visitor
    MiniDoorbell(mini_doorbell::Args),
    /// A camera that pushes pictures by HTTP or FTP
    Push(push::Args),
}

/// Runs the device until `cancel` is cancelled. What happens to it is written to standard output, one JSON object a line.
///
/// # Errors
/// What keeps the device from starting.
pub async fn run(args: Args, cancel: CancellationToken) -> Result<(), SimulateError> {
    match args.family {
        Family::Rtsp(args) => rtsp::run(args, cancel).await,
        Family::Iwfcam(args) => iwfcam::run(args, cancel).await,
        Family::Http(args) => http::run(args, cancel).await,
        Family::MiniDoorbell(args) => mini_doorbell::run(args, cancel).await,
        Family::Push(args) => push::run(args, cancel).await,
    }
}

/// One event for whoever reads standard output: a person, or a script.
fn report(event: &serde_json::Value) {
    // Nobody reading is no reason to stop.
    let _ = writeln!(std::io::stdout().lock(), "{event}");
}

/// Reads a duration as the configuration writes it.
fn duration(text: &str) -> Result<Duration, String> {
    crate::config::duration(text).ok_or_else(|| "a duration is a whole number with its unit: 500ms, 30s, 5m".into())
}

/// The same in milliseconds, forward or, with a minus, backward.
fn signed_ms(text: &str) -> Result<i64, String> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let ms = i64::try_from(duration(rest)?.as_millis()).map_err(|e| e.to_string())?;
    Ok(sign * ms)
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

    fn parse(line: &str) -> Result<rtsp::Args, clap::Error> {
        let program = Program::try_parse_from(std::iter::once("fanlight").chain(line.split_whitespace()))?;
        match program.args.family {
            Family::Rtsp(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        for wrong in ["", "5", "s", "-1s", "1e3s", "1y", "ü"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(signed_ms("-60m"), Ok(-3_600_000));
        assert_eq!(signed_ms("+2s"), Ok(2_000));
    }

    #[test]
    fn every_option_is_understood() {
        let args = parse(
            "rtsp --file a.mp4 --sub-file b.mp4 --listen 127.0.0.1:0 --user u --password p --max-clients 3 --refuse setup \
             --stall-after 30s --drop-every 50 --jump-timestamps -3600s --jump-every 10s --no-audio --codec h265",
        )
        .unwrap();
        let faults = args.faults();
        assert_eq!(faults.stall_after, Some(Duration::from_secs(30)));
        assert_eq!(faults.drop_every, Some(50));
        assert_eq!(faults.jump, Some(rtsp::Jump { by_ms: -3_600_000, every: Duration::from_secs(10) }));
        assert!(parse("rtsp --file a.mp4 --user u").is_err(), "a user without a password");
        assert!(parse("rtsp --file a.mp4 --no-audio --audio pcma").is_err());
        assert!(parse("rtsp --file a.mp4 --drop-every 0").is_err());
        assert!(parse("rtsp").is_ok(), "without a file it plays the built-in footage");
    }
}
