//! Which camera takes which bell, and the bells that no camera takes.

use super::BellId;
use super::picture::Turn;
use super::visits::Visit;
use crate::ingest::Doors;
use crate::ingest::serve::Seldom;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{mpsc, watch};

/// What waits for a camera; more is dropped.
const INBOX: usize = 256;
/// Bytes of pictures that wait for all cameras together. More lose their bytes, but are visits still.
const MOST_QUEUED: usize = 8 << 20;
/// Bells that are kept as new.
const MOST_STRANGERS: usize = 32;
/// Uploads that are kept because they do not decode.
const MOST_DAMAGED: usize = 16;
/// A camera that has left is expected back within this time: its configuration may have changed.
const COMES_BACK: Duration = Duration::from_secs(2);

/// The bells that are known, and those that are not.
#[derive(Debug, Default)]
pub struct Bells {
    state: Mutex<Known>,
    changed: watch::Sender<u64>,
    queued: Arc<AtomicUsize>,
    /// Lines about rings of cameras that nobody configured; there may be hundreds of them.
    pub(super) guests_ring: Seldom,
    /// Pictures that are larger than units' pictures, or damaged, on their way to cameras.
    pub(super) unusual: Turn,
    /// Pictures of bells that no camera takes.
    pub(super) foreign: Turn,
}

#[derive(Debug, Default)]
struct Known {
    takers: Vec<Taker>,
    serial: u64,
    left: Vec<(Option<BellId>, Instant)>,
    strangers: Vec<Stranger>,
    damaged: VecDeque<(BellId, Bytes)>,
}

/// A camera that takes a bell's visits.
#[derive(Debug)]
struct Taker {
    serial: u64,
    /// The bell; `None` takes any that no other names.
    id: Option<BellId>,
    inbox: mpsc::Sender<News>,
}

/// What a camera is told.
#[derive(Debug)]
pub(super) enum News {
    /// Somebody is at the door.
    Visit(Queued),
    /// The base unit has said that it is there.
    Alive,
}

/// A visit whose bytes are counted until it is dropped.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) visit: Visit,
    counted: usize,
    queued: Arc<AtomicUsize>,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.queued.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

/// A bell that no camera takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// Its id.
    pub id: BellId,
    /// When it first rang.
    pub first_seen: SystemTime,
    /// When it last rang.
    pub last_seen: SystemTime,
    /// How often it rang.
    pub visits: u64,
    /// The newest picture that can be shown, turned the right way up as far as is known.
    pub picture: Option<Bytes>,
}

/// A camera's place at the door; dropping it gives it up.
#[derive(Debug)]
pub(super) struct Inbox {
    bells: Arc<Doors>,
    serial: u64,
    news: mpsc::Receiver<News>,
}

impl Inbox {
    /// Takes that bell from now on, or any that no other names.
    pub(super) fn new(doors: Arc<Doors>, id: Option<BellId>) -> Self {
        let (inbox, news) = mpsc::channel(INBOX);
        let mut known = doors.bells.lock();
        known.serial += 1;
        let serial = known.serial;
        known.takers.push(Taker { serial, id, inbox });
        known.strangers.retain(|stranger| id.is_some_and(|id| id != stranger.id));
        drop(known);
        doors.bells.changed.send_modify(|count| *count += 1);
        Self { bells: doors, serial, news }
    }

    /// The next piece of news. Cancel safe.
    pub(super) async fn next(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => news,
            // Its sender goes with this only.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let (mut known, now) = (self.bells.bells.lock(), Instant::now());
        let Known { takers, left, .. } = &mut *known;
        left.retain(|(_, at)| now.saturating_duration_since(*at) < COMES_BACK);
        takers.retain(|taker| {
            if taker.serial == self.serial {
                left.push((taker.id, now));
            }
            taker.serial != self.serial
        });
        drop(known);
        self.bells.bells.changed.send_modify(|count| *count += 1);
    }
}

/// Lets a few through at once, and one a second from then on.
#[derive(Debug, Default)]
pub(super) struct Trickle(Mutex<Option<Instant>>);

impl Trickle {
    /// How many may come at once.
    pub(super) const AT_ONCE: u32 = 8;
    const EVERY: Duration = Duration::from_secs(1);

    /// Whether one more may pass.
    pub(super) fn passes(&self, now: Instant) -> bool {
        let mut paid = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = paid.map_or(now, |paid| paid.max(now));
        let passes = from.saturating_duration_since(now) <= Self::EVERY * (Self::AT_ONCE - 1);
        if passes {
            *paid = Some(from + Self::EVERY);
        }
        passes
    }
}

impl Bells {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes when a camera comes or leaves.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// How many cameras name that bell.
    pub(super) fn names(&self, id: BellId) -> usize {
        self.lock().takers.iter().filter(|taker| taker.id == Some(id)).count()
    }

    /// Whether a camera takes that bell.
    pub(super) fn takes(&self, id: BellId) -> bool {
        self.lock().takers.iter().any(|taker| taker.id.is_none_or(|own| own == id))
    }

    /// Gives a visit to the cameras that take the bell; back if there is none.
    pub(super) fn deliver(&self, visit: Visit) -> Result<(), Visit> {
        let senders = self.senders(visit.id());
        if senders.is_empty() {
            return Err(visit);
        }
        for sender in senders {
            if sender.try_send(News::Visit(self.queue(visit.clone()))).is_err() {
                tracing::debug!("a camera has no room for another visit");
            }
        }
        Ok(())
    }

    /// Counts the bytes of a visit among those that wait; if they are too many, it loses its picture.
    pub(super) fn queue(&self, mut visit: Visit) -> Queued {
        let mut counted = visit.body.len();
        if self.queued.fetch_add(counted, Ordering::Relaxed) + counted > MOST_QUEUED {
            self.queued.fetch_sub(counted, Ordering::Relaxed);
            (counted, visit.body) = (0, Bytes::new());
        }
        Queued { visit, counted, queued: Arc::clone(&self.queued) }
    }

    /// Tells the cameras that take the bell that it is there.
    pub(super) fn alive(&self, id: BellId) {
        for sender in self.senders(id) {
            // Who is too busy to hear it has heard enough of it.
            let _ = sender.try_send(News::Alive);
        }
    }

    /// Those that name the bell, else those that take any.
    fn senders(&self, id: BellId) -> Vec<mpsc::Sender<News>> {
        let known = self.lock();
        let of = |wanted: Option<BellId>| -> Vec<_> {
            known.takers.iter().filter(|taker| taker.id == wanted).map(|taker| taker.inbox.clone()).collect()
        };
        let named = of(Some(id));
        if named.is_empty() { of(None) } else { named }
    }

    /// Waits for a camera that takes the bell, if one has just left. Answers whether there is one.
    pub(super) async fn comes_back(&self, id: BellId) -> bool {
        let mut changes = self.changes();
        let left = self.lock().left.iter().any(|(of, at)| of.is_none_or(|of| of == id) && at.elapsed() < COMES_BACK);
        if !left {
            return self.takes(id);
        }
        let back = async {
            while !self.takes(id) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(COMES_BACK, back).await.is_ok()
    }

    /// Keeps a bell that nobody takes, in place of the one that was silent for longest if there are many.
    /// Answers whether it is new.
    pub(super) fn learn(&self, id: BellId, picture: Option<Bytes>) -> bool {
        let (mut known, now) = (self.lock(), SystemTime::now());
        let at = known.strangers.iter().position(|stranger| stranger.id == id);
        let old = at.map(|at| known.strangers.remove(at));
        let new = old.is_none();
        if known.strangers.len() >= MOST_STRANGERS {
            // In the order of their last visits.
            known.strangers.remove(0);
        }
        known.strangers.push(Stranger {
            id,
            first_seen: old.as_ref().map_or(now, |old| old.first_seen),
            last_seen: now,
            visits: old.as_ref().map_or(0, |old| old.visits) + 1,
            picture: picture.or(old.and_then(|old| old.picture)),
        });
        new
    }

    /// The bells that nobody takes, the newest first.
    pub fn strangers(&self) -> Vec<Stranger> {
        self.lock().strangers.iter().rev().cloned().collect()
    }

    /// Keeps an upload whose picture does not decode, for whoever wants to find out why.
    pub(super) fn keep_damaged(&self, id: BellId, body: Bytes) {
        let mut known = self.lock();
        known.damaged.retain(|(of, _)| *of != id);
        known.damaged.push_back((id, body));
        if known.damaged.len() > MOST_DAMAGED {
            known.damaged.pop_front();
        }
    }

    /// The newest upload of that bell whose picture does not decode, as it came.
    pub fn damaged(&self, id: BellId) -> Option<Bytes> {
        self.lock().damaged.iter().find(|(of, _)| *of == id).map(|(_, body)| body.clone())
    }

    /// Bytes of uploads that are held here: waiting for a camera, of new bells, damaged.
    pub fn held(&self) -> usize {
        let known = self.lock();
        let strangers: usize =
            known.strangers.iter().filter_map(|stranger| stranger.picture.as_ref()).map(Bytes::len).sum();
        let damaged: usize = known.damaged.iter().map(|(_, body)| body.len()).sum();
        self.queued.load(Ordering::Relaxed) + strangers + damaged
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{Header, function};
    use super::Doors;
    use super::*;

    fn id(n: u8) -> BellId {
        BellId([0, 0xff, 2, 0, 0, 0, n, 0])
    }

    fn visit(id: BellId, body: Bytes) -> Visit {
        Visit { header: Header::new(id, function::VISITOR, 1, 4), body, whole: true, late: false }
    }

    async fn rings(inbox: &mut Inbox) -> BellId {
        match inbox.next().await {
            News::Visit(queued) => queued.visit.id(),
            News::Alive => panic!("a sign of life"),
        }
    }

    #[tokio::test]
    async fn a_bell_goes_to_those_that_name_it_else_to_those_that_take_any() {
        let doors = Arc::<Doors>::default();
        let picture = Bytes::from_static(b"face");
        assert!(doors.bells.deliver(visit(id(1), picture.clone())).is_err());
        let mut named = Inbox::new(Arc::clone(&doors), Some(id(1)));
        let mut any = Inbox::new(Arc::clone(&doors), None);
        for n in [1, 2] {
            doors.bells.deliver(visit(id(n), picture.clone())).unwrap();
        }
        assert_eq!((rings(&mut named).await, rings(&mut any).await), (id(1), id(2)));
        drop(named);
        doors.bells.deliver(visit(id(1), picture)).unwrap();
        assert_eq!(rings(&mut any).await, id(1));
        assert_eq!(doors.bells.held(), 0);
    }

    #[tokio::test]
    async fn a_camera_that_changes_misses_nothing() {
        let doors = Arc::<Doors>::default();
        assert!(!doors.bells.comes_back(id(1)).await, "nobody ever took it");
        drop(Inbox::new(Arc::clone(&doors), Some(id(1))));
        let back = doors.bells.comes_back(id(1));
        tokio::pin!(back);
        assert!(futures::poll!(back.as_mut()).is_pending());
        let _inbox = Inbox::new(Arc::clone(&doors), Some(id(1)));
        assert!(back.await);
    }

    #[tokio::test]
    async fn what_waits_is_bounded() {
        let doors = Arc::<Doors>::default();
        let mut inbox = Inbox::new(Arc::clone(&doors), None);
        let picture = Bytes::from(vec![0; 60_000]);
        for _ in 0..2 * INBOX {
            doors.bells.deliver(visit(id(1), picture.clone())).unwrap();
            assert!(doors.bells.held() <= MOST_QUEUED);
        }
        for _ in 0..INBOX {
            assert_eq!(rings(&mut inbox).await, id(1));
        }
        assert_eq!(doors.bells.held(), 0);
        for n in 0..=255 {
            doors.bells.learn(id(n), Some(picture.clone()));
            doors.bells.keep_damaged(id(n), picture.clone());
        }
        let strangers = doors.bells.strangers();
        assert_eq!((strangers.len(), strangers[0].id), (MOST_STRANGERS, id(255)));
        assert!(doors.bells.damaged(id(255)).is_some() && doors.bells.damaged(id(3)).is_none());
        assert_eq!(doors.bells.held(), (MOST_STRANGERS + MOST_DAMAGED) * picture.len());
        doors.bells.learn(id(240), None);
        let again = &doors.bells.strangers()[0];
        assert_eq!((again.id, again.visits, again.picture.is_some()), (id(240), 2, true));
    }
}
