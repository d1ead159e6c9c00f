//! Renditions: tracks in another codec than the device's own, made while somebody wants them.
//!
//! One encoder serves all who want the same rendition of the same track. Each runs in a child process ([`child`]), fed
//! over its standard input: this process never initialises GStreamer, and what crashes or hangs there ends one child
//! and nothing else. What runs in the child is data: [`pipeline`].
//!
//! ```text
//! source stream ──Reader──► session ──stdin──► child: decoder ► gate ► encoder ──stdout──► session ──► rendition's stream
//!                             ▲  runs while that stream has readers, and LINGER longer                        │
//!                             └───────────────────────── its Demand ◄─────────────────────────────────────────┘
//! ```

pub mod child;
pub mod pipeline;
pub mod wire;

mod check;
mod graph;
mod job;
mod packages;
mod process;
mod rendition;
mod repeat;
mod session;
mod stills;

pub use check::{Finding, check};
pub use pipeline::Pipelines;
pub use rendition::{Rendition, RenditionState};

use crate::bus::{LINGER, Stream, TrackId};
use crate::config::Mistakes;
use crate::media::{AccessUnit, Codec};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Why a rendition or a still cannot be had on this machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unavailable {
    /// A sentence a person can act on: it names the package that is missing.
    pub reason: String,
}

impl Unavailable {
    fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// What does not stand in the configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program to run as a child; our own executable.
    pub program: PathBuf,
    /// The folder whose files replace the pipelines that are part of the program.
    pub pipelines: Option<PathBuf>,
    /// How long an encoder goes on after its last viewer left.
    pub linger: Duration,
    /// An encoder that is fed and says nothing for so long is ended.
    pub silence: Duration,
    /// How long a child may take to start.
    pub patience: Duration,
    /// First and longest wait before an encoder that failed is started again; it doubles in between.
    pub back_off: (Duration, Duration),
    /// An encoder that ran so long starts the waits over.
    pub healthy: Duration,
    /// How long the child that makes stills stays after the last one.
    pub still_linger: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            program: own_program(),
            pipelines: None,
            linger: LINGER,
            silence: Duration::from_secs(3),
            patience: Duration::from_secs(15),
            back_off: (Duration::from_millis(250), Duration::from_secs(30)),
            healthy: Duration::from_secs(5),
            still_linger: Duration::from_secs(30),
        }
    }
}

/// Our own executable. Where its file was replaced by a newer one, the one that runs.
pub fn own_program() -> PathBuf {
    let named = std::env::current_exe().ok().filter(|path| path.exists());
    named.unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

/// Makes renditions and stills. One for the program. Dropping it ends its children.
#[derive(Debug)]
pub struct Transcoder {
    shared: Arc<Shared>,
    stills: stills::Stills,
    _end: DropGuard,
}

/// What all renditions share.
#[derive(Debug)]
struct Shared {
    options: Options,
    /// Changes when the files are read again.
    pipelines: watch::Sender<Pipelines>,
    renditions: Mutex<Vec<Arc<Rendition>>>,
    known: Mutex<Known>,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

/// What was found out about the pipelines by running them, by their names.
#[derive(Debug, Default)]
struct Known {
    /// Those that cannot run here.
    lacking: BTreeMap<String, Unavailable>,
    /// The first candidate worth trying: those before it could not be started.
    first: BTreeMap<String, usize>,
    /// The candidates that were logged.
    told: BTreeSet<(String, usize)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No lock here is held over anything that could leave its content half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Transcoder {
    fn default() -> Self {
        Self::new(Options::default())
    }
}

impl Transcoder {
    /// Reads the pipelines and starts nothing. Where a file of [`Options::pipelines`] has mistakes they are logged, and
    /// what is part of the program is used.
    pub fn new(options: Options) -> Self {
        let pipelines = Pipelines::load(options.pipelines.as_deref()).unwrap_or_else(|mistakes| {
            mistakes.iter().for_each(|mistakes| tracing::error!("{mistakes}"));
            Pipelines::default()
        });
        let cancel = CancellationToken::new();
        let shared = Arc::new(Shared {
            options,
            pipelines: watch::Sender::new(pipelines),
            renditions: Mutex::default(),
            known: Mutex::default(),
            cancel: cancel.clone(),
            tasks: TaskTracker::new(),
        });
        Self { stills: stills::Stills::new(Arc::clone(&shared)), shared, _end: cancel.drop_guard() }
    }

    /// Reads the pipelines again. Encoders whose pipeline has changed start anew, and what could not run is tried again.
    ///
    /// # Errors
    /// All mistakes; nothing changes then.
    pub fn reload(&self) -> Result<(), Vec<Mistakes>> {
        let pipelines = Pipelines::load(self.shared.options.pipelines.as_deref())?;
        *lock(&self.shared.known) = Known::default();
        self.shared.pipelines.send_replace(pipelines);
        Ok(())
    }

    /// The rendition of that track of that stream in that codec; the same one for all who ask while it lives. Asking
    /// starts nothing: subscribing to its stream does. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Unavailable`] if there is no pipeline for it, or if it is known that none of its candidates can run here.
    pub fn rendition(&self, stream: &Arc<Stream>, track: TrackId, to: Codec) -> Result<Arc<Rendition>, Unavailable> {
        let gone = || Unavailable::new(format!("{} has no such track any more", stream.path()));
        let (_, info) = stream.tracks().into_iter().find(|(id, _)| *id == track).ok_or_else(gone)?;
        let from = info.codec;
        let pipeline = self.shared.pipelines.borrow().find(from, to).cloned();
        let pipeline = pipeline.ok_or_else(|| Unavailable::new(format!("nothing here makes {to} of {from}")))?;
        if let Some(known) = lock(&self.shared.known).lacking.get(&pipeline.name()) {
            return Err(known.clone());
        }
        if self.shared.cancel.is_cancelled() {
            return Err(Unavailable::new("the program is about to end"));
        }
        let Ok(runtime) = Handle::try_current() else {
            return Err(Unavailable::new(format!("nothing here makes {to} of {from}: there is no runtime")));
        };
        let mut renditions = lock(&self.shared.renditions);
        renditions.retain(|rendition| rendition.is_alive());
        if let Some(known) = renditions.iter().find(|rendition| rendition.is_of(stream, track, to)) {
            return Ok(Arc::clone(known));
        }
        let rendition = Rendition::new(Arc::clone(stream), track, &info, to);
        renditions.push(Arc::clone(&rendition));
        let span = tracing::info_span!("rendition", stream = stream.path(), pipeline = pipeline.name());
        let run = rendition::run(Arc::clone(&rendition), Arc::clone(&self.shared));
        self.shared.tasks.spawn_on(tracing::Instrument::instrument(run, span), &runtime);
        Ok(rendition)
    }

    /// One picture as a JPEG with square pixels, at the size of the picture. JPEG pictures are answered as they are.
    ///
    /// # Errors
    /// [`Unavailable`] if this machine cannot decode it, if the picture is broken, or if too many ask at once.
    pub async fn still(&self, picture: &AccessUnit) -> Result<Bytes, Unavailable> {
        self.stills.still(picture).await
    }

    /// The renditions that somebody asked for since the start, in the order of their sources.
    pub fn states(&self) -> Vec<RenditionState> {
        let mut states: Vec<_> = lock(&self.shared.renditions).iter().map(|rendition| rendition.state()).collect();
        states.sort_by(|a, b| (&a.source, &a.pipeline).cmp(&(&b.source, &b.pipeline)));
        states
    }

    /// Ends all encoders; within 2 s.
    pub async fn stop(&self) {
        self.shared.cancel.cancel();
        self.shared.tasks.close();
        if tokio::time::timeout(Duration::from_secs(2), self.shared.tasks.wait()).await.is_err() {
            tracing::warn!("some encoders did not end in time");
        }
    }
}
