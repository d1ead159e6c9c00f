//! A child process as its parent sees it: started, written to, read from, and surely ended.

use super::wire::{Frame, WireError};
use bytes::{Buf as _, BytesMut};
use std::collections::VecDeque;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tracing::Instrument as _;

/// Bytes that the pipes hold, where the system allows it: a usual picture, so that both sides are woken once for it.
const PIPE: usize = 256 << 10;
/// How long a child may take to end after its input did.
const GOODBYE: Duration = Duration::from_millis(500);
/// Bytes of a line of its complaints that are kept.
const LINE: u64 = 400;
/// Lines of its complaints that are logged; what comes after is not read by anybody.
const LINES: usize = 100;
/// The last lines are kept, to be told if it ends badly.
const KEPT: usize = 4;

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: Option<Output>,
    complaints: Arc<Mutex<VecDeque<String>>>,
}

/// What the child says, message by message.
#[derive(Debug)]
pub(super) struct Output {
    pipe: ChildStdout,
    read: BytesMut,
}

/// Why the child cannot be understood.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl Process {
    /// Starts `program rendition`.
    pub(super) fn start(program: &Path) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.arg("rendition").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C at a terminal is for us alone: we end the child when its viewers have been told.
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn()?;
        let complaints = Arc::default();
        if let Some(errors) = child.stderr.take() {
            tokio::spawn(log(errors, Arc::clone(&complaints)).in_current_span());
        }
        let (input, output) = (child.stdin.take(), child.stdout.take());
        // Where there are many pipes already the kernel says no; then more calls do it.
        let _ = input.as_ref().map(|pipe| rustix::pipe::fcntl_setpipe_size(pipe, PIPE));
        let _ = output.as_ref().map(|pipe| rustix::pipe::fcntl_setpipe_size(pipe, PIPE));
        let output = output.map(|pipe| Output { pipe, read: BytesMut::with_capacity(64 << 10) });
        Ok(Self { child, input, output, complaints })
    }

    /// Its two ends, once.
    pub(super) fn ends(&mut self) -> io::Result<(ChildStdin, Output)> {
        let ends = self.input.take().zip(self.output.take());
        ends.ok_or_else(|| io::Error::other("the ends of the child are taken"))
    }

    /// Ends it: its ends must have been dropped. Gently first, then by force.
    pub(super) async fn stop(mut self) -> Option<ExitStatus> {
        drop((self.input.take(), self.output.take()));
        if let Ok(status) = tokio::time::timeout(GOODBYE, self.child.wait()).await {
            return status.ok();
        }
        if let Err(error) = self.child.start_kill() {
            tracing::debug!(%error, "the encoder's process cannot be killed");
        }
        self.child.wait().await.ok()
    }

    /// How it ended after its output did, and what it complained of last.
    pub(super) async fn fate(mut self) -> (Option<ExitStatus>, String) {
        drop((self.input.take(), self.output.take()));
        let complaints = Arc::clone(&self.complaints);
        let status = self.stop().await;
        let how = match status {
            Some(status) => match (status.signal(), status.code()) {
                (Some(signal), _) => format!("the encoder's process was ended by signal {signal}"),
                (None, code) => format!("the encoder's process ended with code {}", code.unwrap_or_default()),
            },
            None => "the encoder's process ended".into(),
        };
        let last: Vec<_> = complaints.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        (status, if last.is_empty() { how } else { format!("{how}: {}", last.join("; ")) })
    }
}

impl Output {
    /// The next message; `None` at the end. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        loop {
            if let Some(frame) = Frame::take(&mut self.read)? {
                return Ok(Some(frame));
            }
            if self.pipe.read_buf(&mut self.read).await? == 0 {
                return Ok(None);
            }
        }
    }
}

/// Writes a message. Not cancel safe: nothing more may be written after it was interrupted.
pub(super) async fn write(input: &mut ChildStdin, frame: &Frame) -> io::Result<()> {
    let (head, payload) = frame.parts();
    // In one call: what reads it wakes up once.
    input.write_all_buf(&mut head.chain(payload)).await
}

/// Reads what the child complains of to its end, so that it never waits for us.
async fn log(errors: ChildStderr, kept: Arc<Mutex<VecDeque<String>>>) {
    let mut errors = BufReader::new(errors);
    let mut count = 0;
    loop {
        let mut line = Vec::new();
        // A longer line becomes several.
        match (&mut errors).take(LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&line).trim().to_owned();
        if line.is_empty() {
            continue;
        }
        count += 1;
        if count <= LINES {
            tracing::debug!("the encoder's process says: {line}");
        }
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(line);
    }
}
