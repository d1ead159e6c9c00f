//! `fanlight simulate rtsp`.

use super::{Audio, Camera, Clip, Counters, Faults, Footage, Jump, Login, Options, Refuse, SimulateError, Video};
use crate::simulate::{duration, report, signed_ms};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How the simulated camera is, by command line.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What the main stream shows: MP4, Matroska, or raw H.264 without B-frames [default: the demo's street]
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// What the sub stream shows; may be the same file [default: the camera has no sub stream]
    #[arg(long, value_name = "FILE")]
    pub sub_file: Option<PathBuf>,
    /// Where to listen; port 0 takes any free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5554")]
    pub listen: SocketAddr,
    /// Ask clients for this user (Digest MD5 or Basic)
    #[arg(long, requires = "secret")]
    pub user: Option<String>,
    /// The user's password; other users of this machine can see it in the list of processes
    #[arg(long, group = "secret", requires = "user")]
    pub password: Option<String>,
    /// Name of an environment variable that holds the user's password
    #[arg(long, value_name = "NAME", group = "secret", requires = "user")]
    pub password_env: Option<String>,
    /// Serve so many clients at once, main and sub stream together [default: any number]
    #[arg(long, value_name = "N")]
    pub max_clients: Option<usize>,
    /// How to send away a client that is one too many
    #[arg(long, value_enum, default_value_t)]
    pub refuse: Refuse,
    /// Codec of the picture
    #[arg(long, value_enum, default_value_t)]
    pub codec: Video,
    /// Codec of the sound
    #[arg(long, value_enum, default_value_t)]
    pub audio: Audio,
    /// Send no sound
    #[arg(long, conflicts_with = "audio")]
    pub no_audio: bool,
    /// Fault: after so long a client gets no more RTP, though its connection stays open and requests are answered; if it
    /// connects again, it gets as much again
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub stall_after: Option<Duration>,
    /// Fault: every Nth picture is lost on the way, all its packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub drop_every: Option<u32>,
    /// Fault: RTP timestamps jump by so much, forward or backward (-3600s), again and again
    #[arg(long, value_name = "TIME", value_parser = signed_ms, allow_hyphen_values = true)]
    pub jump_timestamps: Option<i64>,
    /// How often timestamps jump
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s", requires = "jump_timestamps")]
    pub jump_every: Duration,
}

impl Args {
    /// The faults asked for.
    pub fn faults(&self) -> Faults {
        Faults {
            stall_after: self.stall_after,
            drop_every: self.drop_every,
            jump: self.jump_timestamps.map(|by_ms| Jump { by_ms, every: self.jump_every }),
        }
    }

    /// Reads the footage and the password.
    ///
    /// # Errors
    /// A file that cannot be played; an environment variable that is not set.
    pub fn options(&self) -> Result<Options, SimulateError> {
        let audio = if self.no_audio { Audio::None } else { self.audio };
        let load = |file: &PathBuf| Clip::load(&Footage::File(file.clone()), self.codec, audio);
        let main = match &self.file {
            Some(file) => load(file)?,
            None => Clip::load(&Footage::Street, self.codec, audio)?,
        };
        let sub = match &self.sub_file {
            Some(file) if Some(file) == self.file.as_ref() => Some(Arc::clone(&main)),
            Some(file) => Some(load(file)?),
            None => None,
        };
        let password = match (&self.password, &self.password_env) {
            (Some(password), _) => Some(password.clone()),
            (None, Some(name)) => Some(
                std::env::var(name)
                    .map_err(|e| SimulateError::Option(format!("--password-env: the variable {name}: {e}")))?,
            ),
            (None, None) => None,
        };
        let login = self.user.clone().zip(password).map(|(user, password)| Login { user, password });
        let (listen, max_clients, refuse, faults) = (self.listen, self.max_clients, self.refuse, self.faults());
        Ok(Options { listen, main, sub, login, max_clients, refuse, faults })
    }
}

/// Runs a camera until `cancel` is cancelled and writes what happens to standard output, one JSON object a line.
///
/// # Errors
/// What keeps the camera from starting.
pub async fn run(args: Args, cancel: CancellationToken) -> Result<(), SimulateError> {
    let start = tokio::task::spawn_blocking(move || Camera::start(args.options()?));
    let camera = start.await.map_err(|e| SimulateError::System(e.into()))??;
    report(&serde_json::json!({ "event": "started", "url": camera.url(), "sub_url": camera.sub_url() }));
    let mut changes = camera.watch();
    let mut before = Counters::default();
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            changed = changes.changed() => if changed.is_err() { break },
        }
        let now = *changes.borrow_and_update();
        if now != before {
            report(&serde_json::json!({ "event": name(&before, &now), "counters": now }));
            before = now;
        }
    }
    let last = camera.counters();
    // Ends its threads, which takes a moment.
    let stop = tokio::task::spawn_blocking(move || drop(camera));
    stop.await.map_err(|e| SimulateError::System(e.into()))?;
    report(&serde_json::json!({ "event": "stopped", "counters": last }));
    Ok(())
}

/// What happened last, as far as the counters tell: changes in quick succession are told as one.
fn name(before: &Counters, now: &Counters) -> &'static str {
    if now.refused > before.refused {
        "refused"
    } else if now.plays > before.plays {
        "playing"
    } else if now.open < before.open {
        "disconnected"
    } else if now.accepted > before.accepted {
        "connected"
    } else {
        "request"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_telling_change_gives_the_name() {
        let none = Counters::default();
        let open = Counters { accepted: 1, open: 1, ..none };
        assert_eq!(name(&none, &open), "connected");
        assert_eq!(name(&open, &Counters { asked: 1, ..open }), "request");
        assert_eq!(name(&open, &Counters { plays: 1, setups: 2, ..open }), "playing");
        assert_eq!(name(&open, &Counters { refused: 1, accepted: 2, ..open }), "refused");
        assert_eq!(name(&open, &Counters { open: 0, ..open }), "disconnected");
    }
}
