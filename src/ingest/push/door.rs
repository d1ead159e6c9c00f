//! Who takes pushed pictures, and how much of them may be in memory.
//!
//! A body counts from its first byte until its picture is shown. One camera's take at most 24 MiB at a time, all together
//! at most 96 MiB; who comes when there is no room is told to come again. A picture is at most 16 MiB.

use super::body::Pushed;
use crate::bus::EventId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// One push is no larger, in bytes: a picture of 8K at its best, with room.
pub const MAX_PUSH: usize = 16 << 20;
/// Bytes of one camera's pushes on their way.
const CAMERA_ROOM: usize = 24 << 20;
/// The same of all cameras.
const ROOM: usize = 96 << 20;
/// Room is taken in pieces of so many bytes.
const PIECE: usize = 64 << 10;
/// Pushes that may wait for their camera.
const WAITING: usize = 8;
/// Pictures take milliseconds to be shown; who is not answered after this never will be.
const PATIENCE: Duration = Duration::from_secs(10);

/// The cameras that take pushed pictures now.
#[derive(Debug)]
pub struct Pushes {
    cameras: Mutex<HashMap<String, Camera>>,
    room: Arc<Semaphore>,
}

#[derive(Clone, Debug)]
struct Camera {
    inbox: mpsc::Sender<Visit>,
    room: Arc<Semaphore>,
}

impl Default for Pushes {
    fn default() -> Self {
        Self { cameras: Mutex::default(), room: Arc::new(Semaphore::new(ROOM / PIECE)) }
    }
}

/// Why a push was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No camera of that name takes pictures now.
    #[error("this camera takes no pictures at the moment")]
    Absent,
    /// The camera has enough to do.
    #[error("too many pictures at once for this camera")]
    Busy,
    /// All cameras together have.
    #[error("too many pictures at once for this gateway")]
    Full,
    /// It is larger than anything that is taken.
    #[error("more than the {} MiB that are taken", MAX_PUSH >> 20)]
    TooLarge,
    /// The picture cannot be shown.
    #[error("the picture cannot be used: {0}")]
    Picture(String),
}

/// What became of a push.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Width and height of the picture as it is shown.
    pub size: Option<(u16, u16)>,
    /// The event that it began, ended, or gave its first picture; `None` for one more of a burst.
    pub event: Option<EventId>,
}

/// A push on its way to its camera.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) pushed: Pushed,
    pub(super) answer: oneshot::Sender<Result<Taken, Refused>>,
    _room: Room,
}

/// Memory that one push takes.
#[derive(Debug)]
pub struct Room {
    name: String,
    camera: Camera,
    all: Arc<Semaphore>,
    held: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
    bytes: usize,
}

impl Pushes {
    /// Opens the door of a camera until the inbox is dropped.
    pub(super) fn enter(self: &Arc<Self>, name: &str) -> Inbox {
        let (sender, visits) = mpsc::channel(WAITING);
        let camera = Camera { inbox: sender.clone(), room: Arc::new(Semaphore::new(CAMERA_ROOM / PIECE)) };
        self.cameras().insert(name.to_owned(), camera);
        Inbox { pushes: Arc::clone(self), name: name.to_owned(), sender, visits }
    }

    /// Room for a push to that camera: none yet.
    ///
    /// # Errors
    /// [`Refused::Absent`].
    pub fn room(&self, name: &str) -> Result<Room, Refused> {
        let camera = self.cameras().get(name).cloned().ok_or(Refused::Absent)?;
        Ok(Room { name: name.to_owned(), camera, all: Arc::clone(&self.room), held: None, bytes: 0 })
    }

    fn cameras(&self) -> MutexGuard<'_, HashMap<String, Camera>> {
        self.cameras.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    /// The camera's name.
    pub fn camera(&self) -> &str {
        &self.name
    }

    /// Makes room for so many bytes more.
    ///
    /// # Errors
    /// [`Refused::TooLarge`], or that there is no room.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Refused> {
        let total = self.bytes.saturating_add(bytes);
        if total > MAX_PUSH {
            return Err(Refused::TooLarge);
        }
        let pieces = total.div_ceil(PIECE) - self.bytes.div_ceil(PIECE);
        self.bytes = total;
        let Some(pieces) = u32::try_from(pieces).ok().filter(|pieces| *pieces > 0) else { return Ok(()) };
        let take = |room: &Arc<Semaphore>| Arc::clone(room).try_acquire_many_owned(pieces);
        let camera = take(&self.camera.room).map_err(|_| Refused::Busy)?;
        let all = take(&self.all).map_err(|_| Refused::Full)?;
        match &mut self.held {
            Some((held_camera, held_all)) => {
                held_camera.merge(camera);
                held_all.merge(all);
            }
            none => *none = Some((camera, all)),
        }
        Ok(())
    }

    /// Hands the push to its camera, and waits until it is shown.
    ///
    /// # Errors
    /// [`Refused`] says why it is not.
    pub async fn push(self, pushed: Pushed) -> Result<Taken, Refused> {
        let (answer, answered) = oneshot::channel();
        let inbox = self.camera.inbox.clone();
        let visit = Visit { pushed, answer, _room: self };
        inbox.try_send(visit).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refused::Busy,
            mpsc::error::TrySendError::Closed(_) => Refused::Absent,
        })?;
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Refused::Absent),
            Err(_) => Err(Refused::Busy),
        }
    }
}

/// Where one camera's pushes arrive.
#[derive(Debug)]
pub(super) struct Inbox {
    pushes: Arc<Pushes>,
    name: String,
    sender: mpsc::Sender<Visit>,
    visits: mpsc::Receiver<Visit>,
}

impl Inbox {
    /// The next push. Cancel safe.
    pub(super) async fn recv(&mut self) -> Option<Visit> {
        self.visits.recv().await
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let mut cameras = self.pushes.cameras();
        // The door may be another's by now.
        if cameras.get(&self.name).is_some_and(|camera| camera.inbox.same_channel(&self.sender)) {
            cameras.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_door_is_open_as_long_as_its_camera_is_there() {
        let pushes = Arc::<Pushes>::default();
        assert_eq!(pushes.room("front").unwrap_err(), Refused::Absent);
        let old = pushes.enter("front");
        let mut new = pushes.enter("front");
        drop(old);
        let room = pushes.room("front").unwrap();
        let answered = tokio::spawn(room.push(Pushed::default()));
        new.recv().await.unwrap().answer.send(Ok(Taken::default())).unwrap();
        assert_eq!(answered.await.unwrap(), Ok(Taken::default()));
        let room = pushes.room("front").unwrap();
        drop(new);
        assert_eq!(room.push(Pushed::default()).await, Err(Refused::Absent));
        assert_eq!(pushes.room("front").unwrap_err(), Refused::Absent);
    }

    #[tokio::test]
    async fn memory_is_bounded_for_each_camera_and_for_all() {
        let pushes = Arc::<Pushes>::default();
        let _doors: Vec<_> = (0..6).map(|number| pushes.enter(&number.to_string())).collect();
        let mut first = pushes.room("0").unwrap();
        assert_eq!(first.grow(MAX_PUSH + 1), Err(Refused::TooLarge));
        first.grow(MAX_PUSH).unwrap();
        assert_eq!(first.grow(1), Err(Refused::TooLarge));
        let mut second = pushes.room("0").unwrap();
        second.grow(CAMERA_ROOM - MAX_PUSH).unwrap();
        assert_eq!(second.grow(1), Err(Refused::Busy), "the camera's own room is full");
        let mut others = Vec::new();
        for number in ["1", "2", "3", "4", "5"] {
            let mut room = pushes.room(number).unwrap();
            others.push(room.grow(MAX_PUSH));
            others.push(Ok(()));
            std::mem::forget(room);
        }
        // 24 MiB are taken; 16 more for each of four cameras fit into 96.
        assert_eq!(others.iter().filter(|taken| **taken == Err(Refused::Full)).count(), 1);
        drop(first);
        pushes.room("0").unwrap().grow(MAX_PUSH).unwrap();
    }

    #[tokio::test]
    async fn a_camera_that_is_busy_says_so() {
        let pushes = Arc::<Pushes>::default();
        let mut inbox = pushes.enter("front");
        let push = |_| tokio::spawn(pushes.room("front").unwrap().push(Pushed::default()));
        let waiting: Vec<_> = (0..WAITING).map(push).collect();
        while inbox.visits.len() < WAITING {
            tokio::task::yield_now().await;
        }
        assert_eq!(pushes.room("front").unwrap().push(Pushed::default()).await, Err(Refused::Busy));
        for waiting in waiting {
            inbox.recv().await.unwrap().answer.send(Err(Refused::Picture("torn".into()))).unwrap();
            assert!(matches!(waiting.await.unwrap(), Err(Refused::Picture(_))));
        }
    }
}
