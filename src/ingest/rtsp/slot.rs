//! The right to one connection, until that connection is closed.

use crate::bus::UpstreamPermit;
use retina::client::SessionGroup;
use std::sync::Arc;
use std::time::Duration;

/// How often to look whether retina's TEARDOWN is done; it tells only of the first failure.
const LOOK: Duration = Duration::from_millis(100);

/// retina tells that TEARDOWN was answered just before it closes the connection, and the camera has yet to notice.
const SETTLE: Duration = Duration::from_millis(100);

/// Holds a permit while a session lives and while retina says goodbye in the background after it.
///
/// retina sends TEARDOWN from a task of its own: over TCP once, on the session's connection, for 5 s at most; over UDP
/// again and again on fresh connections, until it is answered or the camera's session time-out has passed. Each of
/// these would count as a client too, so the permit is held until retina is done.
pub(super) struct Slot {
    permit: Option<UpstreamPermit>,
    group: Arc<SessionGroup>,
}

impl Slot {
    pub(super) fn new(permit: UpstreamPermit) -> Self {
        Self { permit: Some(permit), group: Arc::default() }
    }

    /// What the session belongs to.
    pub(super) fn group(&self) -> &Arc<SessionGroup> {
        &self.group
    }

    /// Waits until the dropped session is closed, or so long; the permit goes back when it really is.
    pub(super) async fn closed(mut self, patience: Duration) {
        // Running out of patience is not the end of it: `drop` sees to the rest.
        let closed = async {
            gone(&self.group).await;
            tokio::time::sleep(SETTLE).await;
        };
        if tokio::time::timeout(patience, closed).await.is_ok() {
            self.permit = None;
        }
    }
}

/// Waits until no TEARDOWN is under way.
async fn gone(group: &SessionGroup) {
    // An error is an attempt that failed; the next one follows while the session is in the group.
    while group.await_teardown().await.is_err() {
        tokio::time::sleep(LOOK).await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let (Some(permit), Ok(runtime)) = (self.permit.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let group = Arc::clone(&self.group);
        // Not a look at it here, even if all may be done: where the runtime ends, looking panics, and this may run while
        // the task that held it is taken apart.
        runtime.spawn(async move {
            gone(&group).await;
            tokio::time::sleep(SETTLE).await;
            drop(permit);
        });
    }
}
