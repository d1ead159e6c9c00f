//! The encoder's own process: `fanlight rendition`, hidden from users. It reads jobs and units from its standard input
//! and writes to its standard output; the form is in [`wire`](super::wire). It ends when its input does.
//!
//! Only here does transcoding touch GStreamer: a crash in a codec or a driver, or a pipeline that hangs, ends this
//! process and nothing else.

use super::graph::{self, Gate, Graph};
use super::job::{Job, Report, Task, Verdict};
use super::wire::{Frame, Unit, WireError};
use bytes::{Bytes, BytesMut};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use std::fs::File;
use std::io::{self, Read as _, StdinLock, Write as _};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long one still may take.
pub(super) const STILL: Duration = Duration::from_secs(5);
/// How often it is looked whether a still has failed.
const GLANCE: gst::ClockTime = gst::ClockTime::from_mseconds(50);

/// Why the process cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The standard streams are not what they should be.
    #[error("standard input and output: {0}")]
    Streams(#[from] io::Error),
    /// GStreamer did not start.
    #[error("GStreamer: {0}")]
    GStreamer(#[from] gst::glib::Error),
    /// What came is not what a parent sends.
    #[error("input: {0}")]
    Input(#[from] WireError),
    /// A message came that has no place there.
    #[error("input: {0}")]
    Unexpected(String),
}

/// Does what the standard input says until it ends.
///
/// # Errors
/// [`ChildError`]; whoever started it reads it from the standard error.
pub fn run() -> Result<ExitCode, ChildError> {
    // What hangs in a driver does not notice that its input has ended.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    // Codecs and drivers write to standard output as they like: they get standard error for that.
    let own = rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3).map_err(io::Error::from)?;
    rustix::stdio::dup2_stdout(io::stderr()).map_err(io::Error::from)?;
    let output = Arc::new(Output(Mutex::new(File::from(own))));
    gst::init()?;
    let mut input = Input::new();
    loop {
        let job = match input.next() {
            Frame::Job(json) => json,
            // Left over from a still that was given up.
            Frame::Unit(_) | Frame::Key => continue,
            other => return Err(ChildError::Unexpected(format!("a message of the wrong direction: {other:?}"))),
        };
        let job: Job = serde_json::from_slice(&job).map_err(|error| ChildError::Unexpected(error.to_string()))?;
        match job.task {
            Task::Encode => return encode(&job, &mut input, &output),
            Task::Check => {
                let verdict =
                    |launch: &String| Graph::build(launch, "").map_or_else(|verdict| verdict, |_| Verdict::default());
                output.report(&Report::Candidates(job.launches.iter().map(verdict).collect()));
            }
            Task::Still => still(&job, &mut input, &output),
        }
    }
}

/// Standard input, message by message. The process ends where it does; one that hangs in its pipeline by then is killed
/// by the parent, or by the kernel when the parent is gone.
///
/// It is read by the thread that feeds the pipeline: one of its own would be woken once more for each picture.
struct Input {
    read: BytesMut,
    part: Vec<u8>,
    pipe: StdinLock<'static>,
}

impl Input {
    fn new() -> Self {
        Self { read: BytesMut::new(), part: vec![0; 64 << 10], pipe: io::stdin().lock() }
    }

    fn next(&mut self) -> Frame {
        let code = loop {
            match Frame::take(&mut self.read) {
                Ok(Some(frame)) => return frame,
                Ok(None) => {}
                Err(error) => {
                    complain(&ChildError::Input(error).to_string());
                    break 1;
                }
            }
            match self.pipe.read(&mut self.part) {
                Ok(0) => break 0,
                Ok(length) => self.read.extend_from_slice(self.part.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break 1,
            }
        };
        std::process::exit(code)
    }
}

/// Says something to the parent's log.
fn complain(text: &str) {
    // Nobody listening is no reason to stop.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Standard output, written to by the pipeline's threads and the main one.
struct Output(Mutex<File>);

impl Output {
    fn send(&self, frame: &Frame) {
        let (head, payload) = frame.parts();
        let mut output = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if write(&mut output, &head, &payload).is_err() {
            // The parent is gone.
            std::process::exit(0);
        }
    }

    fn report(&self, report: &Report) {
        let json = serde_json::to_vec(report).expect("strings and lists can be written as JSON");
        self.send(&Frame::Report(json.into()));
    }
}

/// Writes both, mostly in one call: the parent wakes up once.
fn write(output: &mut File, head: &[u8], payload: &[u8]) -> io::Result<()> {
    let written = match output.write_vectored(&[io::IoSlice::new(head), io::IoSlice::new(payload)]) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
        other => other?,
    };
    output.write_all(head.get(written..).unwrap_or_default())?;
    output.write_all(payload.get(written.saturating_sub(head.len())..).unwrap_or_default())
}

fn encode(job: &Job, input: &mut Input, output: &Arc<Output>) -> Result<ExitCode, ChildError> {
    let mut verdicts = Vec::new();
    for (number, launch) in job.launches.iter().enumerate() {
        if number < job.first {
            verdicts.push(Verdict { missing: Vec::new(), fault: Some("it did not work before".into()) });
            continue;
        }
        match start(job, launch, output) {
            Ok((graph, gate)) => {
                output.send(&Frame::Ready(u32::try_from(number).unwrap_or(u32::MAX)));
                return Ok(feed(&graph, &gate, input, output));
            }
            Err(verdict) => verdicts.push(verdict),
        }
    }
    output.report(&Report::Candidates(verdicts));
    Ok(ExitCode::FAILURE)
}

fn start(job: &Job, launch: &str, output: &Arc<Output>) -> Result<(Graph, Arc<Gate>), Verdict> {
    let graph = Graph::build(launch, &job.caps)?;
    let gate = Arc::new(Gate::new(job.most_per_second));
    let is_video = !job.caps.starts_with("audio/");
    if is_video {
        graph.guard(Arc::clone(&gate));
    }
    graph.source.set_is_live(true);
    let (sending, noting) = (Arc::clone(output), Arc::clone(&gate));
    let new_sample = move |sink: &gst_app::AppSink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        if let Some(unit) = graph::unit(&sample) {
            if unit.random_access {
                noting.key(unit.pts);
            }
            sending.send(&Frame::Unit(unit));
        }
        Ok(gst::FlowSuccess::Ok)
    };
    graph.sink.set_callbacks(gst_app::AppSinkCallbacks::builder().new_sample(new_sample).build());
    if graph.pipeline.set_state(gst::State::Playing).is_err() {
        let text = trouble(&graph).unwrap_or_else(|| "it does not start".into());
        let _ = graph.pipeline.set_state(gst::State::Null);
        return Err(Verdict { missing: Vec::new(), fault: Some(text) });
    }
    if let Some(bus) = graph.pipeline.bus() {
        let output = Arc::clone(output);
        let watch = move || {
            while let Some(message) = bus.timed_pop_filtered(None, &[gst::MessageType::Error]) {
                if let gst::MessageView::Error(error) = message.view() {
                    output.report(&Report::Failed(words(error)));
                    std::process::exit(1);
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("watch".into()).spawn(watch) {
            complain(&error.to_string());
        }
    }
    Ok((graph, gate))
}

/// What the pipeline complains of, if it does.
fn trouble(graph: &Graph) -> Option<String> {
    match graph.pipeline.bus()?.pop_filtered(&[gst::MessageType::Error])?.view() {
        gst::MessageView::Error(error) => Some(words(error)),
        _ => None,
    }
}

fn words(error: &gst::message::Error) -> String {
    let source = error.src().map(|source| source.name().to_string()).unwrap_or_default();
    let debug = error.debug().unwrap_or_default();
    // The last line says what happened, those before it where in GStreamer's source.
    let detail = debug.lines().last().unwrap_or_default();
    format!("{source}: {} {detail}", error.error().message())
}

fn feed(graph: &Graph, gate: &Gate, input: &mut Input, output: &Output) -> ExitCode {
    loop {
        match input.next() {
            Frame::Unit(unit) => {
                if !unit.skip {
                    gate.open(unit.pts);
                }
                if graph.push(unit).is_err() {
                    // Why, the watching thread tells, and ends the process.
                    std::thread::sleep(Duration::from_secs(1));
                    return ExitCode::FAILURE;
                }
                output.send(&Frame::Taken);
            }
            Frame::Key => gate.want_key(),
            _ => return ExitCode::FAILURE,
        }
    }
}

/// One picture, by the first candidate that makes it.
fn still(job: &Job, input: &mut Input, output: &Output) {
    let Frame::Unit(unit) = input.next() else {
        output.report(&Report::Failed("a unit was to come".into()));
        return;
    };
    let deadline = Instant::now() + STILL;
    let mut verdicts = Vec::new();
    for launch in &job.launches {
        match picture(launch, &job.caps, unit.clone(), deadline) {
            Ok(jpeg) => {
                output.send(&Frame::Unit(Unit { payload: jpeg, ..unit }));
                return;
            }
            Err(verdict) => verdicts.push(verdict),
        }
    }
    output.report(&Report::Candidates(verdicts));
}

fn picture(launch: &str, caps: &str, unit: Unit, deadline: Instant) -> Result<Bytes, Verdict> {
    let fault = |text: String| Verdict { missing: Vec::new(), fault: Some(text) };
    let graph = Graph::build(launch, caps)?;
    let made = (|| {
        if graph.pipeline.set_state(gst::State::Playing).is_err() {
            return Err(fault(trouble(&graph).unwrap_or_else(|| "it does not start".into())));
        }
        let fed = graph.push(unit).is_ok() && graph.source.end_of_stream().is_ok();
        while fed && Instant::now() < deadline {
            if let Some(sample) = graph.sink.try_pull_sample(GLANCE) {
                let unit = graph::unit(&sample).ok_or_else(|| fault("a picture without a time".into()))?;
                return Ok(unit.payload);
            }
            if let Some(text) = trouble(&graph) {
                return Err(fault(text));
            }
            if graph.sink.is_eos() {
                return Err(fault("the picture cannot be decoded".into()));
            }
        }
        Err(fault(trouble(&graph).unwrap_or_else(|| format!("no picture within {} s", STILL.as_secs()))))
    })();
    let _ = graph.pipeline.set_state(gst::State::Null);
    made
}
