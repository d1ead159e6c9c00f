//! One encoder at work: its child is started, fed from the source, and what it makes is published.

use super::job::{self, Job, Report, Task, Verdict};
use super::pipeline::{Pipeline, Pipelines, USUAL_RATE};
use super::process::{self, Output, Process};
use super::rendition::{Rendition, announced};
use super::repeat::{Next, Repeats};
use super::wire::{Frame, Unit};
use super::{Shared, lock};
use crate::bus::Want;
use crate::media::h264::Scanner;
use crate::media::{AccessUnit, Codec, Format, TrackInfo, VideoFormat, jpeg};
use std::os::unix::process::ExitStatusExt as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::process::ChildStdin;
use tokio::sync::{Notify, Semaphore, watch};

/// Units on their way to the pipeline. What the child has not taken yet waits in the source's ring, where a reader that
/// is late goes on at a key picture.
const WINDOW: usize = 4;
/// Requests for key pictures are carried out no more often.
const KEY_REQUESTS: Duration = Duration::from_secs(1);
/// A source whose picture size changes more often than this has the pipeline see to it.
const SIZE_CHANGES: Duration = Duration::from_secs(2);
/// So many pictures of the backlog are encoded beside the last at most.
const HELD_BACK: u32 = 2;
/// Pictures that a decoder holds back where the parameter sets do not say how many.
const USUAL_DEPTH: u32 = 4;

/// How a session ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// Nobody has watched for the linger time.
    Unwanted,
    /// The source's track is gone.
    SourceGone,
    /// The picture size or the pipeline has changed: another encoder is needed.
    Changed,
    /// No candidate can run here: what each lacks.
    Lacking(Vec<Vec<String>>),
    Failed(Failure),
}

/// An encoder that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) text: String,
    /// The candidate that ran.
    pub(super) candidate: Option<usize>,
    /// Something came out of it.
    pub(super) worked: bool,
    /// Somebody killed it: that says nothing about the candidate.
    pub(super) killed: bool,
    /// It gave a reason itself.
    pub(super) told: bool,
    /// How long something came out of it.
    pub(super) played: Duration,
}

/// How long a child that takes no more may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What is known of the child's progress.
#[derive(Debug)]
struct Progress {
    started: Instant,
    ready: bool,
    /// Units sent and not taken, and since when nothing of that has changed.
    outstanding: (usize, Instant),
    /// Units sent to be encoded since something came out last, and when the first of them was.
    unanswered: (u32, Option<Instant>),
}

pub(super) struct Session<'a> {
    rendition: &'a Rendition,
    shared: &'a Shared,
    pipeline: Arc<Pipeline>,
    first: usize,
    progress: Mutex<Progress>,
    /// The child has said that it is ready.
    ready: Notify,
    window: Semaphore,
}

/// What ended the feeding of the child.
enum Fed {
    SourceGone,
    Changed,
    /// The child takes no more: why, its output says.
    Refused,
}

/// What ended the reading from the child.
enum Read {
    /// It reported on its candidates: none works.
    Candidates(Vec<Verdict>),
    Failed(String),
    /// It ended without a word.
    Gone,
    Nonsense(String),
}

/// Which candidate runs, and since when something has come out of it.
#[derive(Default)]
struct Works {
    candidate: Option<usize>,
    since: Option<Instant>,
}

/// What is known of all that comes out.
struct Published {
    form: Form,
    /// For pictures that may come again unchanged and that each make one of the encoder's.
    repeats: Option<Repeats>,
}

impl Published {
    /// What to publish of a unit that came out of the child.
    fn note(&mut self, unit: Unit) -> Option<Unit> {
        let random_access = self.form.note(&unit);
        let unit = Unit { random_access, ..unit };
        match &mut self.repeats {
            Some(repeats) => repeats.made(unit),
            None => Some(unit),
        }
    }
}

impl<'a> Session<'a> {
    pub(super) fn new(rendition: &'a Rendition, shared: &'a Shared, pipeline: Arc<Pipeline>, first: usize) -> Self {
        let now = Instant::now();
        let progress = Progress { started: now, ready: false, outstanding: (0, now), unanswered: (0, None) };
        Self {
            rendition,
            shared,
            pipeline,
            first,
            progress: Mutex::new(progress),
            ready: Notify::new(),
            window: Semaphore::new(WINDOW),
        }
    }

    /// Runs an encoder until it fails or is not wanted any more.
    pub(super) async fn run(&self, pipelines: &mut watch::Receiver<Pipelines>) -> Ending {
        // A device on demand comes up meanwhile.
        let _interest = self.rendition.source.demand.register();
        let tracks = self.rendition.source.tracks();
        let Some((_, info)) = tracks.into_iter().find(|(id, _)| *id == self.rendition.track) else {
            return Ending::SourceGone;
        };
        let failed = |text: String| Failure {
            text,
            candidate: None,
            worked: false,
            killed: false,
            told: false,
            played: Duration::ZERO,
        };
        let program = &self.shared.options.program;
        let started = Process::start(program).and_then(|mut process| process.ends().map(|ends| (process, ends)));
        let (process, (mut input, mut output)) = match started {
            Ok(started) => started,
            Err(error) => {
                let text = format!("the encoder's process {} does not start: {error}", program.display());
                return Ending::Failed(failed(text));
            }
        };
        self.rendition.counted.running.store(true, Ordering::Relaxed);
        let repeats = (self.rendition.from == Codec::Jpeg && self.rendition.to == Codec::H264).then(Repeats::default);
        let published = Published { form: Form::new(announced(&info, self.rendition.to)), repeats };
        let (published, mut works) = (Mutex::new(published), Works::default());
        let ending = {
            let fed = self.feed(&info, &mut input, &published);
            let read = self.collect(&mut output, &published, &mut works);
            let silent = self.silent(depth(&info));
            let unwanted = self.rendition.stream().demand.unwanted(self.shared.options.linger);
            tokio::pin!(fed, read);
            tokio::select! {
                read = &mut read => Err(read),
                fed = &mut fed => match fed {
                    Fed::SourceGone => Ok(Ending::SourceGone),
                    Fed::Changed => Ok(Ending::Changed),
                    // It says why, or ends.
                    Fed::Refused => {
                        Err(tokio::time::timeout(LAST_WORDS, read).await.unwrap_or(Read::Gone))
                    }
                },
                text = silent => Ok(Ending::Failed(failed(text))),
                () = unwanted => {
                    // At once, not when the child has ended: who comes meanwhile is not to see these pictures as new.
                    self.rendition.stream().clear();
                    self.rendition.stream().interrupt();
                    *lock(&self.rendition.last) = None;
                    Ok(Ending::Unwanted)
                }
                () = self.other_pipeline(pipelines) => Ok(Ending::Changed),
            }
        };
        drop((input, output));
        let played = works.since.map_or(Duration::ZERO, |since| since.elapsed());
        let complete =
            |failure: Failure| Failure { candidate: works.candidate, worked: works.since.is_some(), played, ..failure };
        match ending {
            Ok(Ending::Failed(failure)) => {
                process.stop().await;
                Ending::Failed(complete(failure))
            }
            Ok(ending) => {
                process.stop().await;
                ending
            }
            Err(Read::Candidates(verdicts)) => {
                process.stop().await;
                none_works(verdicts)
                    .unwrap_or_else(|text| Ending::Failed(complete(Failure { told: true, ..failed(text) })))
            }
            Err(Read::Failed(text)) => {
                process.stop().await;
                Ending::Failed(complete(Failure { told: true, ..failed(format!("the encoder failed: {text}")) }))
            }
            Err(Read::Nonsense(text)) => {
                process.stop().await;
                Ending::Failed(complete(failed(format!("the encoder's process is not understood: {text}"))))
            }
            Err(Read::Gone) => {
                let (status, text) = process.fate().await;
                let killed = status.is_some_and(|status| status.signal() == Some(9));
                Ending::Failed(complete(Failure { killed, ..failed(text) }))
            }
        }
    }

    /// Waits until another pipeline is in place of ours.
    async fn other_pipeline(&self, pipelines: &mut watch::Receiver<Pipelines>) {
        let (from, to) = (self.rendition.from, self.rendition.to);
        while pipelines.changed().await.is_ok() {
            if pipelines.borrow_and_update().find(from, to) != Some(&self.pipeline) {
                return;
            }
        }
        std::future::pending().await
    }

    /// Waits until the child has been silent for too long, and says so in words.
    async fn silent(&self, depth: u32) -> String {
        let limit = self.shared.options.silence;
        loop {
            tokio::time::sleep(limit / 12).await;
            let progress = lock(&self.progress);
            let (outstanding, since) = progress.outstanding;
            let (unanswered, asked) = progress.unanswered;
            if !progress.ready {
                if progress.started.elapsed() > self.shared.options.patience {
                    return "the encoder does not get ready".into();
                }
            } else if outstanding > 0 && since.elapsed() > limit {
                return format!("the encoder has taken nothing for {} s", limit.as_secs_f64());
            } else if unanswered > depth + 1 && asked.is_some_and(|asked| asked.elapsed() > limit) {
                return format!("nothing has come out of the encoder for {} s", limit.as_secs_f64());
            }
        }
    }

    /// Sends the job, then the source's units. A child that takes nothing holds up nobody but this.
    async fn feed(&self, info: &TrackInfo, input: &mut ChildStdin, published: &Mutex<Published>) -> Fed {
        let source = &self.rendition.source;
        let rate = Some(source.totals().frame_rate).filter(|rate| *rate > 0.0);
        let rate = rate.or_else(|| info.video().and_then(|video| video.frame_rate));
        // x264enc keeps a picture of unknown duration until the next one comes (measured): it is told some rate.
        let rate = Some(rate.unwrap_or(USUAL_RATE));
        let job = Job {
            task: Task::Encode,
            launches: self.pipeline.filled(info, rate),
            first: self.first,
            caps: job::caps(info, rate),
            most_per_second: self.pipeline.most_per_second,
        };
        let json = serde_json::to_vec(&job).expect("strings and numbers can be written as JSON");
        if process::write(input, &Frame::Job(json.into())).await.is_err() {
            return Fed::Refused;
        }
        self.ready.notified().await;
        let mut reader = source.subscribe(Want::Track(self.rendition.track));
        let Some((_, unit)) = reader.next().await else { return Fed::SourceGone };
        // All that is cached is decoded; the viewer begins with the last of it. A decoder that puts pictures in order holds
        // the newest back until the next one comes: then those before it are encoded, too, so that nobody waits.
        let mut backlog = vec![unit];
        backlog.extend(std::iter::from_fn(|| reader.try_next().map(|(_, unit)| unit)));
        let held_back = depth(info).min(HELD_BACK) as usize;
        let first = backlog.len().saturating_sub(1 + held_back);
        // What viewers have from an encoder before is not encoded again: this one's key picture would be left out.
        let seen = *lock(&self.rendition.last);
        for (number, unit) in backlog.into_iter().enumerate() {
            let skip = number < first || seen.is_some_and(|seen| unit.pts <= seen);
            if self.offer(input, published, unit, skip).await.is_err() {
                return Fed::Refused;
            }
        }
        let size = |info: &TrackInfo| info.video().map(|video| (video.width, video.height)).filter(|size| size.0 > 0);
        let (started, begun_with) = (Instant::now(), size(info));
        let (mut wanted, mut sent) = (None::<tokio::time::Instant>, None::<tokio::time::Instant>);
        loop {
            tokio::select! {
                () = self.rendition.key.notified(), if wanted.is_none() => {
                    let now = tokio::time::Instant::now();
                    wanted = Some(sent.map_or(now, |sent| now.max(sent + KEY_REQUESTS)));
                }
                () = at(wanted), if wanted.is_some() => {
                    (wanted, sent) = (None, Some(tokio::time::Instant::now()));
                    if process::write(input, &Frame::Key).await.is_err() {
                        return Fed::Refused;
                    }
                }
                next = reader.next() => {
                    let Some((_, unit)) = next else { return Fed::SourceGone };
                    let other = begun_with.is_some() && size(&unit.info).is_some() && size(&unit.info) != begun_with;
                    if other && unit.random_access && started.elapsed() > SIZE_CHANGES {
                        return Fed::Changed;
                    }
                    if self.offer(input, published, unit, false).await.is_err() {
                        return Fed::Refused;
                    }
                }
            }
        }
    }

    /// Sends a unit, unless what was made of it before can be published in its place.
    async fn offer(
        &self,
        input: &mut ChildStdin,
        published: &Mutex<Published>,
        unit: AccessUnit,
        skip: bool,
    ) -> std::io::Result<()> {
        let next = match &mut lock(published).repeats {
            Some(repeats) if !skip => repeats.next(&unit),
            _ => Next::Encode,
        };
        match next {
            Next::Encode => self.send(input, unit, skip).await,
            Next::EncodeAsKey => {
                process::write(input, &Frame::Key).await?;
                self.send(input, unit, skip).await
            }
            Next::Repeat(again) => {
                self.publish(published, again);
                Ok(())
            }
        }
    }

    async fn send(&self, input: &mut ChildStdin, unit: AccessUnit, skip: bool) -> std::io::Result<()> {
        match self.window.acquire().await {
            Ok(permit) => permit.forget(),
            Err(_) => return Err(std::io::ErrorKind::BrokenPipe.into()),
        }
        {
            let mut progress = lock(&self.progress);
            let now = Instant::now();
            let (outstanding, since) = progress.outstanding;
            progress.outstanding = (outstanding + 1, if outstanding == 0 { now } else { since });
            if !skip {
                let (unanswered, asked) = progress.unanswered;
                progress.unanswered = (unanswered.saturating_add(1), Some(asked.unwrap_or(now)));
            }
        }
        self.rendition.counted.units_in.fetch_add(1, Ordering::Relaxed);
        let AccessUnit { pts, dts, random_access, payload, .. } = unit;
        process::write(input, &Frame::Unit(Unit { pts, dts, random_access, skip, payload })).await
    }

    /// Publishes what the child makes, until it ends.
    async fn collect(&self, output: &mut Output, published: &Mutex<Published>, works: &mut Works) -> Read {
        loop {
            match output.next().await {
                Ok(Some(Frame::Ready(number))) => {
                    let mut progress = lock(&self.progress);
                    progress.ready = true;
                    progress.outstanding.1 = Instant::now();
                    drop(progress);
                    works.candidate = usize::try_from(number).ok();
                    self.ready.notify_one();
                }
                Ok(Some(Frame::Taken)) => {
                    let mut progress = lock(&self.progress);
                    progress.outstanding = (progress.outstanding.0.saturating_sub(1), Instant::now());
                    drop(progress);
                    self.window.add_permits(1);
                }
                Ok(Some(Frame::Unit(unit))) => {
                    lock(&self.progress).unanswered = (0, None);
                    if works.since.is_none() {
                        works.since = Some(Instant::now());
                        self.works(works.candidate);
                    }
                    let unit = lock(published).note(unit);
                    if let Some(unit) = unit {
                        self.publish(published, unit);
                    }
                }
                Ok(Some(Frame::Report(json))) => {
                    return match serde_json::from_slice(&json) {
                        Ok(Report::Candidates(verdicts)) => Read::Candidates(verdicts),
                        Ok(Report::Failed(text)) => Read::Failed(text),
                        Err(error) => Read::Nonsense(error.to_string()),
                    };
                }
                Ok(Some(Frame::Job(_) | Frame::Key)) => {
                    return Read::Nonsense("a message of the wrong direction".into());
                }
                Ok(None) => return Read::Gone,
                Err(error) => return Read::Nonsense(error.to_string()),
            }
        }
    }

    /// The candidate has made something.
    fn works(&self, candidate: Option<usize>) {
        self.rendition.works();
        let Some(number) = candidate else { return };
        let about = self.pipeline.candidates.get(number).map_or("", |candidate| &candidate.about);
        if lock(&self.shared.known).told.insert((self.pipeline.name(), number)) {
            tracing::info!(
                candidate = about,
                "encoding; this is the first candidate of {} that works here",
                self.pipeline.file
            );
        } else {
            tracing::debug!(candidate = about, "encoding");
        }
    }

    fn publish(&self, published: &Mutex<Published>, unit: Unit) {
        let mut last = lock(&self.rendition.last);
        if last.is_some_and(|last| unit.pts <= last) {
            // The encoder before had come further.
            self.rendition.key.notify_one();
            return;
        }
        let (info, first) = lock(published).form.publish();
        let discontinuity = first && last.is_some();
        *last = Some(unit.pts);
        drop(last);
        self.rendition.counted.units_out.fetch_add(1, Ordering::Relaxed);
        self.rendition.stream().publish(
            self.rendition.own_track,
            AccessUnit {
                pts: unit.pts,
                dts: unit.pts,
                random_access: unit.random_access,
                discontinuity,
                info,
                payload: unit.payload,
            },
        );
    }
}

/// How many pictures a decoder may hold back.
fn depth(info: &TrackInfo) -> u32 {
    match info.codec {
        Codec::H264 | Codec::H265 => info.video().and_then(|video| video.reorder_depth).map_or(USUAL_DEPTH, u32::from),
        _ => 0,
    }
}

async fn at(instant: Option<tokio::time::Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// No candidate works: for want of elements, or how the last one failed in words.
fn none_works(verdicts: Vec<Verdict>) -> Result<Ending, String> {
    match verdicts.iter().rev().find_map(|verdict| verdict.fault.clone()) {
        Some(fault) => Err(format!("no way to encode works: {fault}")),
        None => Ok(Ending::Lacking(verdicts.into_iter().map(|verdict| verdict.missing).collect())),
    }
}

/// What is known of the track that comes out.
struct Form {
    info: Arc<TrackInfo>,
    scanner: Scanner,
    /// Something of this child was published.
    published: bool,
}

impl Form {
    fn new(info: TrackInfo) -> Self {
        Self { info: Arc::new(info), scanner: Scanner::new(), published: false }
    }

    /// Looks at a unit; says whether a decoder may start there.
    fn note(&mut self, unit: &Unit) -> bool {
        match self.info.codec {
            Codec::H264 => {
                let scan = self.scanner.scan(&unit.payload);
                if let (true, Some(format)) = (scan.changed, self.scanner.format()) {
                    // What encoders without B pictures do not say in their parameter sets.
                    let format = VideoFormat { reorder_depth: Some(0), ..format.clone() };
                    self.set(Format::Video(format));
                }
                scan.random_access
            }
            Codec::Jpeg => {
                if let Ok(picture) = jpeg::parse(&unit.payload) {
                    let (width, height) = (u32::from(picture.width), u32::from(picture.height));
                    if self.info.video().is_none_or(|video| (video.width, video.height) != (width, height)) {
                        let known = self.info.video().cloned().unwrap_or_default();
                        self.set(Format::Video(VideoFormat { width, height, ..known }));
                    }
                }
                true
            }
            _ => unit.random_access,
        }
    }

    /// A unit goes out: what is known of it, and whether it is the first.
    fn publish(&mut self) -> (Arc<TrackInfo>, bool) {
        (Arc::clone(&self.info), !std::mem::replace(&mut self.published, true))
    }

    fn set(&mut self, format: Format) {
        self.info = Arc::new(TrackInfo { format, ..TrackInfo::clone(&self.info) });
    }
}
