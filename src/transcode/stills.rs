//! Key pictures to JPEG: one child for the stills of all cameras, one picture after the other.

use super::job::{self, Job, Report, Task};
use super::pipeline::Pipeline;
use super::process::{self, Output, Process};
use super::wire::{Frame, Unit};
use super::{Shared, Unavailable, child, lock};
use crate::media::{AccessUnit, Codec};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::process::ChildStdin;
use tokio::sync::{mpsc, oneshot};

/// Requests that wait; more are refused.
const WAITING: usize = 16;
/// Results kept while the child lives, for those who ask for the same picture again.
const KEPT: usize = 8;
/// A child gets a little longer than it gives itself, and time to start.
const PATIENCE: Duration = child::STILL.saturating_add(Duration::from_secs(3));

type Answer = Result<Bytes, Unavailable>;

/// Makes stills; starts its child when the first is wanted.
#[derive(Debug)]
pub(super) struct Stills {
    shared: Arc<Shared>,
    /// To the task that has the child, which ends with it.
    desk: Mutex<Option<mpsc::Sender<Request>>>,
}

struct Request {
    picture: AccessUnit,
    pipeline: Arc<Pipeline>,
    answer: oneshot::Sender<Answer>,
}

impl Stills {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, desk: Mutex::default() }
    }

    pub(super) async fn still(&self, picture: &AccessUnit) -> Answer {
        let from = picture.info.codec;
        if from == Codec::Jpeg {
            return Ok(picture.payload.clone());
        }
        let pipeline = self.shared.pipelines.borrow().find(from, Codec::Jpeg).cloned();
        let pipeline = pipeline.ok_or_else(|| Unavailable::new(format!("nothing here makes pictures of {from}")))?;
        if let Some(known) = lock(&self.shared.known).lacking.get(&pipeline.name()) {
            return Err(known.clone());
        }
        let (answer, answered) = oneshot::channel();
        self.ask(Request { picture: picture.clone(), pipeline, answer })?;
        answered.await.unwrap_or_else(|_| Err(Unavailable::new("the program is about to end")))
    }

    fn ask(&self, request: Request) -> Result<(), Unavailable> {
        let mut desk = lock(&self.desk);
        let sender = match desk.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => {
                let (sender, requests) = mpsc::channel(WAITING);
                self.open(requests);
                sender
            }
        };
        let sent = sender.try_send(request);
        *desk = Some(sender);
        sent.map_err(|_| Unavailable::new("too many pictures are being made at once; try again in a moment"))
    }

    fn open(&self, requests: mpsc::Receiver<Request>) {
        let (shared, cancel) = (Arc::clone(&self.shared), self.shared.cancel.clone());
        let serve = Desk { shared, child: None, kept: VecDeque::new() }.serve(requests);
        let serve = async move {
            tokio::select! {
                () = serve => {}
                () = cancel.cancelled() => {}
            }
        };
        self.shared.tasks.spawn(serve);
    }
}

/// The task that has the child.
struct Desk {
    shared: Arc<Shared>,
    child: Option<Running>,
    /// Pictures and what was made of them. A picture that is kept here is the same if its bytes lie in the same place.
    kept: VecDeque<(Bytes, Bytes)>,
}

struct Running {
    process: Process,
    input: ChildStdin,
    output: Output,
}

impl Running {
    async fn stop(self) {
        drop((self.input, self.output));
        self.process.stop().await;
    }
}

/// What became of one attempt.
enum Tried {
    Made(Bytes),
    /// It is the picture's fault, or the machine's.
    Refused(Unavailable),
    /// It is the child's fault.
    Broken(String),
}

impl Desk {
    /// Serves until nobody has asked for a while.
    async fn serve(mut self, mut requests: mpsc::Receiver<Request>) {
        loop {
            let next = tokio::time::timeout(self.shared.options.still_linger, requests.recv()).await;
            let Ok(Some(request)) = next else { break };
            if !request.answer.is_closed() {
                let answer = self.answer(&request).await;
                // Who has gone meanwhile does not mind.
                let _ = request.answer.send(answer);
            }
        }
        // What has just been sent is answered, what comes now finds a closed desk and opens another.
        requests.close();
        while let Ok(request) = requests.try_recv() {
            let answer = self.answer(&request).await;
            let _ = request.answer.send(answer);
        }
        if let Some(child) = self.child {
            child.stop().await;
        }
    }

    async fn answer(&mut self, request: &Request) -> Answer {
        let payload = &request.picture.payload;
        let same = |kept: &Bytes| kept.as_ptr() == payload.as_ptr() && kept.len() == payload.len();
        if let Some((_, jpeg)) = self.kept.iter().find(|(kept, _)| same(kept)) {
            return Ok(jpeg.clone());
        }
        // A child that lingered may have died meanwhile: one more chance.
        let had_child = self.child.is_some();
        let mut tried = self.attempt(request).await;
        if had_child && matches!(tried, Tried::Broken(_)) {
            tried = self.attempt(request).await;
        }
        match tried {
            Tried::Made(jpeg) => {
                if self.kept.len() == KEPT {
                    self.kept.pop_front();
                }
                self.kept.push_back((payload.clone(), jpeg.clone()));
                Ok(jpeg)
            }
            Tried::Refused(unavailable) => Err(unavailable),
            Tried::Broken(text) => {
                tracing::warn!("a still could not be made: {text}");
                Err(Unavailable::new("the picture could not be made; the log says why"))
            }
        }
    }

    /// Has the child make the picture; a child at fault is ended.
    async fn attempt(&mut self, request: &Request) -> Tried {
        let mut child = match self.child.take() {
            Some(child) => child,
            None => match Process::start(&self.shared.options.program).and_then(|mut process| {
                let (input, output) = process.ends()?;
                Ok(Running { process, input, output })
            }) {
                Ok(child) => child,
                Err(error) => return Tried::Broken(error.to_string()),
            },
        };
        let talk = talk(&mut child, request);
        match tokio::time::timeout(PATIENCE, talk).await {
            Ok(Ok(Talk::Picture(jpeg))) => {
                self.child = Some(child);
                Tried::Made(jpeg)
            }
            Ok(Ok(Talk::Report(report))) => {
                self.child = Some(child);
                self.refused(&request.pipeline, report)
            }
            Ok(Err(text)) => {
                drop((child.input, child.output));
                let (_, fate) = child.process.fate().await;
                Tried::Broken(format!("{text}; {fate}"))
            }
            Err(_) => {
                child.stop().await;
                Tried::Broken(format!("no answer within {} s", PATIENCE.as_secs()))
            }
        }
    }

    fn refused(&self, pipeline: &Pipeline, report: Report) -> Tried {
        let verdicts = match report {
            Report::Failed(text) => return Tried::Broken(text),
            Report::Candidates(verdicts) => verdicts,
        };
        if let Some(fault) = verdicts.iter().rev().find_map(|verdict| verdict.fault.as_ref()) {
            tracing::debug!("a still could not be made: {fault}");
            return Tried::Refused(Unavailable::new("the picture cannot be decoded"));
        }
        let missing: Vec<_> = verdicts.into_iter().map(|verdict| verdict.missing).collect();
        let unavailable = Unavailable::new(pipeline.lacking(&missing));
        if lock(&self.shared.known).lacking.insert(pipeline.name(), unavailable.clone()).is_none() {
            tracing::warn!("{unavailable}; after installing it, reload or restart");
        }
        Tried::Refused(unavailable)
    }
}

/// What the child answers.
enum Talk {
    Picture(Bytes),
    Report(Report),
}

async fn talk(child: &mut Running, request: &Request) -> Result<Talk, String> {
    let AccessUnit { pts, dts, random_access, info, payload, .. } = request.picture.clone();
    let job = Job {
        task: Task::Still,
        launches: request.pipeline.filled(&info, None),
        first: 0,
        caps: job::caps(&info, None),
        most_per_second: None,
    };
    let json = serde_json::to_vec(&job).expect("strings and numbers can be written as JSON");
    let unit = Unit { pts, dts, random_access, skip: false, payload };
    for frame in [Frame::Job(json.into()), Frame::Unit(unit)] {
        process::write(&mut child.input, &frame).await.map_err(|error| error.to_string())?;
    }
    match child.output.next().await {
        Ok(Some(Frame::Unit(unit))) => Ok(Talk::Picture(unit.payload)),
        Ok(Some(Frame::Report(json))) => serde_json::from_slice(&json).map(Talk::Report).map_err(|e| e.to_string()),
        Ok(Some(_)) => Err("a message that does not belong there".into()),
        Ok(None) => Err("the child ended".into()),
        Err(error) => Err(error.to_string()),
    }
}
