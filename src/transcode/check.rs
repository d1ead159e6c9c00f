//! `fanlight check` for pipelines: every candidate is built once in a child, so that a typing mistake is found before
//! anybody watches.

use super::job::{Job, Report, Task};
use super::packages;
use super::pipeline::Pipelines;
use super::process::{self, Process};
use super::wire::Frame;
use crate::media::{AudioFormat, Codec, Format, Kind, TrackInfo, VideoFormat};
use std::path::Path;
use std::time::Duration;

/// How long the child may take: it loads codecs and drivers for the first time, maybe.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was found in a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, and the candidate in it.
    pub place: String,
    /// What is wrong.
    pub text: String,
    /// It cannot work anywhere; otherwise this machine lacks something.
    pub mistake: bool,
}

/// Builds every candidate of every pipeline in a child. An element that is not installed is a finding only where no
/// candidate is left, or where no package is known to have it, which may be a typing mistake.
///
/// # Errors
/// Why the child could not be asked, in words.
pub async fn check(program: &Path, pipelines: &Pipelines) -> Result<Vec<Finding>, String> {
    let launches = pipelines.iter().flat_map(|pipeline| pipeline.filled(&example(pipeline.from), Some(15.0))).collect();
    let job = Job { task: Task::Check, launches, first: 0, caps: String::new(), most_per_second: None };
    let json = serde_json::to_vec(&job).expect("strings and numbers can be written as JSON");
    let words = |error: &dyn std::fmt::Display| format!("the pipelines cannot be checked: {error}");
    let mut process = Process::start(program).map_err(|error| words(&error))?;
    let (mut input, mut output) = process.ends().map_err(|error| words(&error))?;
    process::write(&mut input, &Frame::Job(json.into())).await.map_err(|error| words(&error))?;
    let answer = tokio::time::timeout(PATIENCE, output.next()).await;
    drop((input, output));
    let report = match answer {
        Ok(Ok(Some(Frame::Report(json)))) => {
            process.stop().await;
            serde_json::from_slice(&json).map_err(|error| words(&error))?
        }
        Ok(_) => return Err(words(&process.fate().await.1)),
        Err(_) => {
            process.stop().await;
            return Err(words(&format!("no answer within {} s", PATIENCE.as_secs())));
        }
    };
    let Report::Candidates(verdicts) = report else { return Err(words(&"an answer to another question")) };
    let mut verdicts = verdicts.into_iter();
    let mut findings = Vec::new();
    for pipeline in pipelines.iter() {
        let verdicts: Vec<_> = verdicts.by_ref().take(pipeline.candidates.len()).collect();
        for (candidate, verdict) in pipeline.candidates.iter().zip(&verdicts) {
            let unknown = verdict.missing.iter().filter(|element| packages::package(element).is_none());
            let texts = unknown.map(|element| packages::advice(element)).chain(verdict.fault.clone());
            let place = format!("{}: candidate {:?}", pipeline.file, candidate.about);
            findings.extend(texts.map(|text| Finding { place: place.clone(), text, mistake: true }));
        }
        if verdicts.iter().all(|verdict| !verdict.missing.is_empty()) {
            let missing: Vec<_> = verdicts.into_iter().map(|verdict| verdict.missing).collect();
            findings.push(Finding { place: pipeline.file.clone(), text: pipeline.lacking(&missing), mistake: false });
        }
    }
    Ok(findings)
}

/// A usual track of that codec.
fn example(codec: Codec) -> TrackInfo {
    let format = match codec.kind() {
        Kind::Video => Format::Video(VideoFormat { width: 1280, height: 720, ..VideoFormat::default() }),
        Kind::Audio => Format::Audio(AudioFormat { channels: 1, sample_rate: 16_000, ..AudioFormat::default() }),
    };
    TrackInfo { codec, clock_rate: 90_000, format }
}
