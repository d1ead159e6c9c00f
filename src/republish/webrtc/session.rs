//! A session as signalling sees it.

use super::fragment::Fragment;
use super::offer::IceCredentials;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// What a session's owner asks of its task.
#[derive(Debug)]
pub(super) enum Command {
    /// New credentials of the viewer's; ours are the answer.
    Restart(IceCredentials, oneshot::Sender<Fragment>),
}

/// Why ICE was not restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestartError {
    /// The session is over.
    #[error("the session is over")]
    Closed,
}

/// A viewer's session. Clones are the same session; dropping them all does not end it.
#[derive(Clone, Debug)]
pub struct Session {
    answer: Arc<str>,
    commands: mpsc::Sender<Command>,
    /// Asks the task to end.
    pub(super) stop: CancellationToken,
    /// The task has ended.
    pub(super) closed: CancellationToken,
}

impl Session {
    pub(super) fn new(answer: String, commands: mpsc::Sender<Command>) -> Self {
        Self { answer: answer.into(), commands, stop: CancellationToken::new(), closed: CancellationToken::new() }
    }

    /// The SDP answer.
    pub fn answer(&self) -> &str {
        &self.answer
    }

    /// Takes more candidates of the viewer. A lite agent has no use for them: the viewer checks, and its address is seen
    /// from that (RFC 8445 section 2.5). So all kinds are accepted, mDNS names too, and none is looked at.
    pub fn trickle(&self, candidates: &[String]) {
        tracing::trace!(candidates = candidates.len(), "trickled");
    }

    /// Restarts ICE with the viewer's new credentials; answers ours and our candidates. Media goes on where it goes
    /// until the viewer nominates another path.
    ///
    /// # Errors
    /// [`RestartError`] if the session is over.
    pub async fn restart(&self, ice: &IceCredentials) -> Result<Fragment, RestartError> {
        let (answer, answered) = oneshot::channel();
        let command = Command::Restart(ice.clone(), answer);
        self.commands.send(command).await.map_err(|_| RestartError::Closed)?;
        answered.await.map_err(|_| RestartError::Closed)
    }

    /// Ends the session and tells the viewer.
    pub fn close(&self) {
        self.stop.cancel();
    }

    /// Cancelled when the session is over, for whatever reason.
    pub fn closed(&self) -> CancellationToken {
        self.closed.clone()
    }
}
