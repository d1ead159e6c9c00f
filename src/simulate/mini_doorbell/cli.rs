//! `fanlight simulate mini-doorbell`.

use super::{Bell, Counters, Doorbells, Fault, Options, corners, footage};
use crate::ingest::mini_doorbell::wire::function;
use crate::ingest::mini_doorbell::{BellId, PORT};
use crate::simulate::rtsp::Footage;
use crate::simulate::{SimulateError, duration, report};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How the simulated doorbells are, by command line.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where they upload to
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT))]
    pub server: SocketAddr,
    /// What visitors look like: MP4, Matroska, or raw H.264 [default: the demo's visitors]
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Show four corners instead: red, green, blue and white in reading order once the picture is the right way up
    #[arg(long, conflicts_with = "file")]
    pub corners: bool,
    /// The id of the first one, 16 hexadecimal digits
    #[arg(long, default_value = "00ff020056341200", value_parser = id)]
    pub id: BellId,
    /// How many; each after the first has the next id
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=200))]
    pub bells: u8,
    /// The address that the first one calls from, as 127.0.0.31; the others take those after it [default: any]
    #[arg(long, value_name = "ADDRESS")]
    pub source: Option<IpAddr>,
    /// Each rings so often; without it each rings once, and the program ends
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub every: Option<Duration>,
    /// What a ring means: 1 is a visitor, 2 a warning
    #[arg(long, value_name = "N", default_value_t = function::VISITOR)]
    pub function: u8,
    /// Bytes a second, as in bad Wi-Fi [default: as fast as it goes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// Fault: what is wrong with each upload
    #[arg(long, value_name = "FAULT", value_enum, default_value_t = Fault::None)]
    pub fault: Fault,
    /// Answer those who look for doorbells by UDP at this address, as 0.0.0.0:5880 [default: do not]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub control: Option<SocketAddr>,
    /// Register by UDP at this address every 3 s, as 127.0.0.1:30001 [default: do not]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub register: Option<SocketAddr>,
}

fn id(text: &str) -> Result<BellId, String> {
    BellId::parse(text).ok_or_else(|| "16 hexadecimal digits are needed".into())
}

impl Args {
    /// The doorbells asked for, but for what they show.
    pub fn options(&self) -> Options {
        let bell = Bell {
            source: self.source,
            fault: self.fault,
            rate: self.rate,
            ..Bell::new(self.server, self.id)
        };
        Options {
            bell,
            count: self.bells,
            every: self.every,
            function: self.function,
            control: self.control,
            register: self.register,
            ..Options::new(self.server)
        }
    }
}

/// Runs doorbells until `cancel` is cancelled, or each has rung once. What happens is written to standard output, one JSON
/// object a line.
///
/// # Errors
/// What keeps them from starting.
pub async fn run(args: Args, cancel: CancellationToken) -> Result<(), SimulateError> {
    let (options, corners_only) = (args.options(), args.corners);
    let shown = args.file.clone().map_or(Footage::Visitors, Footage::File);
    let load = move || if corners_only { (0..6).map(corners).collect() } else { footage(&shown) };
    let load = tokio::task::spawn_blocking(load);
    let pictures = tokio::select! {
        pictures = load => pictures.map_err(|error| SimulateError::System(error.into()))??,
        () = cancel.cancelled() => return Ok(()),
    };
    let once = args.every.is_none();
    let bells = Doorbells::start(options, pictures)?;
    let ids: Vec<String> = bells.ids().iter().map(ToString::to_string).collect();
    report(&serde_json::json!({ "event": "started", "server": args.server.to_string(), "ids": ids }));
    let mut changes = bells.watch();
    if once {
        (0..bells.ids().len()).for_each(|unit| bells.press(unit));
    }
    let mut before = Counters::default();
    while !(once && before.rings == u64::from(args.bells)) {
        tokio::select! {
            () = cancel.cancelled() => break,
            changed = changes.changed() => if changed.is_err() { break },
        }
        let now = *changes.borrow_and_update();
        report(&serde_json::json!({ "event": name(&before, &now), "counters": now }));
        before = now;
    }
    report(&serde_json::json!({ "event": "stopped", "counters": bells.counters() }));
    Ok(())
}

fn name(before: &Counters, now: &Counters) -> &'static str {
    if now.wedged > before.wedged {
        "wedged"
    } else if now.gave_up > before.gave_up {
        "gave_up"
    } else if now.sent > before.sent {
        "rang"
    } else if now.redirected > before.redirected {
        "redirected"
    } else {
        "query"
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
        Ok(Program::try_parse_from(std::iter::once("mini-doorbell").chain(line.split_whitespace()))?.args)
    }

    #[test]
    fn every_option_is_understood() {
        let args = parse(
            "--server 192.0.2.1:39090 --id 00ff020056341201 --bells 3 --source 127.0.0.31 --every 30s --function 2 --rate 500 \
             --fault no-jpeg --control 0.0.0.0:5880 --register 127.0.0.1:30001 --corners",
        )
        .unwrap();
        let options = args.options();
        assert_eq!((options.count, options.function, options.bell.fault), (3, 2, Fault::NoJpeg));
        assert_eq!((options.every, options.bell.rate), (Some(Duration::from_secs(30)), Some(500)));
        assert_eq!(options.bell.id.to_string(), "00ff020056341201");
        assert!(parse("").is_ok());
        for wrong in ["--id 1", "--bells 0", "--bells 201", "--rate 0", "--fault rain", "--every 30", "--corners --file a"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
