//! A camera that pushes pictures: by HTTP as a raw body, a form or a Hikvision alarm, or by FTP.
//!
//! It does what such cameras do: one connection a picture, one picture after the other, and what went wrong is forgotten.

mod cli;
mod ftp;
mod http;

pub use cli::{Args, run};

use super::iwfcam::Scene;
use serde::Serialize;
use std::io;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use url::Url;

/// How pictures are sent to an `http://` address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// The picture is the body
    #[default]
    Raw,
    /// `multipart/form-data`, the picture in a field named `image`
    Multipart,
    /// A Hikvision alarm: XML, then the picture
    Alarm,
    /// The same without the picture
    AlarmOnly,
}

/// What is wrong with what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// Pictures end in the middle
    Truncated,
    /// A PNG picture
    NotJpeg,
    /// 17 MiB
    TooLarge,
    /// One byte a second
    Slow,
}

/// What the camera does.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to: `http://HOST:PORT/v1/cameras/NAME/push` or `ftp://NAME@HOST:PORT/FOLDER`.
    pub to: Url,
    /// The camera's token, as Bearer or as the FTP password.
    pub token: Option<String>,
    /// How, for HTTP.
    pub form: Form,
    /// From one picture to the next.
    pub every: Duration,
    /// Pictures of the scene in a second.
    pub fps: u32,
    /// What is wrong with each `fault_every`th picture.
    pub fault: Option<Fault>,
    /// At least 1: every picture.
    pub fault_every: u64,
    /// Ends after so many pictures.
    pub count: Option<u64>,
}

impl Options {
    /// A good picture every ten seconds.
    pub fn new(to: Url) -> Self {
        let every = Duration::from_secs(10);
        Self { to, token: None, form: Form::Raw, every, fps: 10, fault: None, fault_every: 1, count: None }
    }
}

/// What has happened so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Pictures that were sent, or tried to be.
    pub sent: u64,
    /// Those that were taken.
    pub taken: u64,
    /// Those that were refused.
    pub refused: u64,
    /// Those for which there was no answer.
    pub failed: u64,
    /// The last answer, or why there was none.
    pub answer: String,
}

/// What the other side answered.
#[derive(Clone, Debug)]
struct Answer {
    taken: bool,
    text: String,
}

/// A camera that pushes; it stops when dropped.
#[derive(Debug)]
pub struct Pusher {
    counters: watch::Receiver<Counters>,
    _stop: DropGuard,
}

/// How long a push may take, unless it is meant to be slow.
const PATIENCE: Duration = Duration::from_secs(20);

impl Pusher {
    /// Starts to push what the scene shows.
    pub fn start(options: Options, scene: Scene) -> Self {
        let (sender, counters) = watch::channel(Counters::default());
        let cancel = CancellationToken::new();
        let stop = cancel.clone().drop_guard();
        tokio::spawn(async move {
            tokio::select! {
                () = push(options, scene, sender) => {}
                () = cancel.cancelled() => {}
            }
        });
        Self { counters, _stop: stop }
    }

    /// What has happened so far; its sender is gone once all pictures are sent.
    pub fn watch(&self) -> watch::Receiver<Counters> {
        self.counters.clone()
    }
}

async fn push(options: Options, scene: Scene, counters: watch::Sender<Counters>) {
    let start = Instant::now();
    let mut ticks = interval(options.every.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent = 0;
    while options.count.is_none_or(|count| sent < count) {
        ticks.tick().await;
        sent += 1;
        let number = (start.elapsed().as_secs_f64() * f64::from(options.fps)) as u64;
        let fault = options.fault.filter(|_| sent % options.fault_every.max(1) == 0);
        // Each is told from the one before by the number in it.
        let picture = spoiled(scene.picture(number.max(sent)), fault);
        let slow = fault == Some(Fault::Slow);
        let once = async {
            match options.to.scheme() {
                "ftp" => ftp::upload(&options, &picture, slow).await,
                _ => http::post(&options, &picture, slow).await,
            }
        };
        let patience = if slow { Duration::MAX } else { PATIENCE };
        let answer = match timeout(patience, once).await {
            Ok(answer) => answer,
            Err(_) => Err(io::Error::other(format!("no answer within {} s", PATIENCE.as_secs()))),
        };
        counters.send_modify(|counters| {
            counters.sent += 1;
            match answer {
                Ok(Answer { taken, text }) => {
                    *(if taken { &mut counters.taken } else { &mut counters.refused }) += 1;
                    counters.answer = text;
                }
                Err(error) => {
                    counters.failed += 1;
                    counters.answer = error.to_string();
                }
            }
        });
    }
}

fn spoiled(picture: Vec<u8>, fault: Option<Fault>) -> Vec<u8> {
    match fault {
        None | Some(Fault::Slow) => picture,
        Some(Fault::Truncated) => picture.get(..picture.len() / 2).unwrap_or_default().to_vec(),
        Some(Fault::NotJpeg) => [&b"\x89PNG\r\n\x1a\n"[..], &[0; 8192]].concat(),
        Some(Fault::TooLarge) => {
            let mut large = picture;
            large.resize(17 << 20, 0);
            large
        }
    }
}

/// Writes all of it at once, or a byte a second.
async fn write(to: &mut (impl tokio::io::AsyncWrite + Unpin), bytes: &[u8], slow: bool) -> io::Result<()> {
    use tokio::io::AsyncWriteExt as _;
    if !slow {
        return to.write_all(bytes).await;
    }
    for byte in bytes {
        to.write_all(std::slice::from_ref(byte)).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// `host:port` of a URL.
fn authority(url: &Url, port: u16) -> io::Result<(String, u16)> {
    let host = url.host_str().ok_or_else(|| io::Error::other("the URL names no host"))?;
    Ok((host.trim_matches(['[', ']']).to_owned(), url.port().unwrap_or(port)))
}
