//! What people ask devices to do.

use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Something a device can be asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Open a door: the one with that id, or the only one.
    OpenDoor(Option<String>),
    /// Restart the device.
    Reboot,
    /// Switch an outlet.
    Power(bool),
}

/// A command that a device has declared; nothing else is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandInfo {
    /// The name in URLs and topics, as `open_door` or `open_door/2`.
    pub name: String,
    /// What to write on the button.
    pub title: String,
    /// What is sent to the device.
    pub command: Command,
}

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The device said no.
    #[error("the device refused: {0}")]
    Refused(String),
    /// The device is not connected; commands are never queued for an absent device.
    #[error("the device is not connected")]
    Absent,
    /// The device did not answer in time; whether it acted is not known, and the command is not repeated.
    #[error("the device did not answer, so it is not known whether it acted")]
    Unknown,
}

/// A command on its way to a device's session.
#[derive(Debug)]
pub struct CommandRequest {
    /// What to do.
    pub command: Command,
    /// Where the answer goes. Dropping it counts as [`CommandError::Absent`].
    pub answer: oneshot::Sender<Result<(), CommandError>>,
}

/// Hands a command to a device's session and waits for its answer.
pub(super) async fn send(
    session: Option<mpsc::Sender<CommandRequest>>,
    command: Command,
    patience: Duration,
) -> Result<(), CommandError> {
    let session = session.ok_or(CommandError::Absent)?;
    let (answer, answered) = oneshot::channel();
    session.try_send(CommandRequest { command, answer }).map_err(|_| CommandError::Absent)?;
    match tokio::time::timeout(patience, answered).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(CommandError::Absent),
        Err(_) => Err(CommandError::Unknown),
    }
}
