//! Key pictures as JPEG, each decoded and scaled once however many ask.

use super::scale::{self, ScaleError};
use crate::bus::{KeyPicture, Stream};
use crate::media::{AccessUnit, Codec};
use crate::transcode::{Transcoder, Unavailable};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Semaphore;

/// How many widths of a stream's newest picture are kept.
const WIDTHS: usize = 4;
/// How many pictures are decoded, and how many are scaled at once: the rest of the machine is for video.
const DECODING: usize = 4;
const SCALING: usize = 2;
/// How long decoding one picture may take, with those that are before it.
const PATIENCE: Duration = Duration::from_secs(20);
/// A picture that could not be decoded is not tried again for so long.
const FORGIVE: Duration = Duration::from_secs(5);

type Decode = dyn Fn(AccessUnit) -> BoxFuture<'static, Result<Bytes, Unavailable>> + Send + Sync;

/// A picture as JPEG and when it came.
#[derive(Clone, Debug)]
pub(super) struct Still {
    pub(super) jpeg: Bytes,
    /// When it was received, by our clock.
    pub(super) at: SystemTime,
    /// The same, for its age.
    pub(super) received: Instant,
}

/// Why there is no JPEG of a picture.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum StillError {
    /// Not on this machine: it says what is missing.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// Not this picture.
    #[error("{0}")]
    Broken(String),
}

/// The newest pictures of all streams, made when somebody asks for them.
pub(super) struct Stills {
    decode: Box<Decode>,
    streams: Mutex<Vec<(Weak<Stream>, Slot)>>,
    decoding: Semaphore,
    scaling: Semaphore,
    /// Pictures decoded that were no JPEG.
    pub(super) decoded: AtomicU64,
    /// Pictures scaled.
    pub(super) scaled: AtomicU64,
}

/// Whoever makes something of a stream's picture holds it; the others wait and find what was made.
type Slot = Arc<tokio::sync::Mutex<Made>>;

/// What was made of a stream's newest picture.
#[derive(Debug, Default)]
struct Made {
    whole: Option<(u64, Still)>,
    /// By width, the one made last at the end.
    widths: VecDeque<(u32, u64, Still)>,
    failed: Option<(u64, Instant, StillError)>,
}

impl Made {
    /// What is there of that picture, or of a newer one.
    fn find(&self, number: u64, width: Option<u32>) -> Option<Result<Still, StillError>> {
        let found = match width {
            None => self.whole.as_ref().map(|(made, still)| (*made, still)),
            Some(width) => self.widths.iter().find(|(made, ..)| *made == width).map(|(_, made, still)| (*made, still)),
        };
        if let Some((_, still)) = found.filter(|(made, _)| *made >= number) {
            return Some(Ok(still.clone()));
        }
        let (_, _, error) =
            self.failed.as_ref().filter(|(failed, at, _)| *failed >= number && at.elapsed() < FORGIVE)?;
        Some(Err(error.clone()))
    }
}

impl Stills {
    pub(super) fn new(transcoder: &Arc<Transcoder>) -> Arc<Self> {
        let transcoder = Arc::clone(transcoder);
        Self::with(move |unit| {
            let transcoder = Arc::clone(&transcoder);
            Box::pin(async move { transcoder.still(&unit).await })
        })
    }

    /// With another decoder than the transcoder.
    pub(super) fn with(
        decode: impl Fn(AccessUnit) -> BoxFuture<'static, Result<Bytes, Unavailable>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            decode: Box::new(decode),
            streams: Mutex::default(),
            decoding: Semaphore::new(DECODING),
            scaling: Semaphore::new(SCALING),
            decoded: AtomicU64::new(0),
            scaled: AtomicU64::new(0),
        })
    }

    /// That picture of that stream, or a newer one that is there already; no wider than `width` pixels.
    ///
    /// # Errors
    /// [`StillError`] if it cannot be decoded.
    pub(super) async fn get(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
        picture: KeyPicture,
        width: Option<u32>,
    ) -> Result<Still, StillError> {
        let KeyPicture { picture: number, unit, at, received, .. } = picture;
        let ready = (unit.info.codec == Codec::Jpeg).then(|| unit.payload.clone());
        if let (Some(jpeg), None) = (&ready, width) {
            return Ok(Still { jpeg: jpeg.clone(), at, received });
        }
        let mut made = self.slot(stream).lock_owned().await;
        if let Some(found) = made.find(number, width) {
            return found;
        }
        let this = Arc::clone(self);
        // A task of its own: who gives up must not leave the others to start again.
        let work = tokio::spawn(async move {
            let result = this.make(&mut made, (number, unit, ready), (at, received), width).await;
            if let Err(error) = &result {
                made.failed = Some((number, Instant::now(), error.clone()));
            }
            result
        });
        work.await.unwrap_or_else(|_| Err(StillError::Broken("decoding the picture failed".into())))
    }

    async fn make(
        &self,
        made: &mut Made,
        (number, unit, ready): (u64, AccessUnit, Option<Bytes>),
        (at, received): (SystemTime, Instant),
        width: Option<u32>,
    ) -> Result<Still, StillError> {
        let (number, whole) = match (ready, &made.whole) {
            (Some(jpeg), _) => (number, Still { jpeg, at, received }),
            (None, Some((newer, whole))) if *newer >= number => (*newer, whole.clone()),
            (None, _) => {
                // A page with many cameras asks for all of them at once: each waits for its turn.
                let _turn = self.decoding.acquire().await;
                let late = |_| StillError::Broken("decoding the picture took too long".into());
                let jpeg = tokio::time::timeout(PATIENCE, (self.decode)(unit)).await.map_err(late)??;
                self.decoded.fetch_add(1, Ordering::Relaxed);
                let whole = Still { jpeg, at, received };
                made.whole = Some((number, whole.clone()));
                (number, whole)
            }
        };
        let Some(width) = width else {
            return Ok(whole);
        };
        let Ok(_turn) = self.scaling.acquire().await else {
            return Ok(whole);
        };
        let jpeg = whole.jpeg.clone();
        let scaled = tokio::task::spawn_blocking(move || scale::to_width(&jpeg, width)).await;
        let broken = |error: ScaleError| StillError::Broken(error.to_string());
        let scaled = scaled.map_err(|_| StillError::Broken("scaling the picture failed".into()))?.map_err(broken)?;
        let still = match scaled {
            Some(jpeg) => {
                self.scaled.fetch_add(1, Ordering::Relaxed);
                Still { jpeg: jpeg.into(), ..whole }
            }
            None => whole,
        };
        made.widths.retain(|(kept, ..)| *kept != width);
        if made.widths.len() == WIDTHS {
            made.widths.pop_front();
        }
        made.widths.push_back((width, number, still.clone()));
        Ok(still)
    }

    fn slot(&self, stream: &Arc<Stream>) -> Slot {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, slot)) = streams.iter().find(|(known, _)| std::ptr::eq(known.as_ptr(), Arc::as_ptr(stream))) {
            return Arc::clone(slot);
        }
        streams.retain(|(known, _)| known.strong_count() > 0);
        let slot = Slot::default();
        streams.push((Arc::downgrade(stream), Arc::clone(&slot)));
        slot
    }
}

impl fmt::Debug for Stills {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stills").field("decoded", &self.decoded).field("scaled", &self.scaled).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Limits, TrackId};
    use crate::media::{Format, MediaTime, TrackInfo, VideoFormat};
    use futures::future::join_all;

    fn info(codec: Codec) -> TrackInfo {
        TrackInfo { codec, clock_rate: 90_000, format: Format::Video(VideoFormat::default()) }
    }

    fn camera(codec: Codec) -> (Arc<Stream>, TrackId) {
        let stream = Stream::new("front", Limits::default());
        let id = stream.announce(&[info(codec)])[0];
        (stream, id)
    }

    fn publish(stream: &Stream, id: TrackId, codec: Codec, payload: Vec<u8>) -> KeyPicture {
        let time = stream.latest().unwrap_or(MediaTime::START) + Duration::from_millis(40);
        let info = Arc::new(info(codec));
        let (random_access, discontinuity) = (true, false);
        stream.publish(
            id,
            AccessUnit { pts: time, dts: time, random_access, discontinuity, info, payload: payload.into() },
        );
        stream.newest_key().unwrap()
    }

    /// Takes its time, and makes a picture whose width is the first byte times ten.
    fn slow() -> Arc<Stills> {
        Stills::with(|unit| {
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                match unit.payload.first() {
                    Some(0) | None => Err(Unavailable { reason: "install this".into() }),
                    Some(width) => Ok(scale::tests::halves(usize::from(*width) * 10, 300).into()),
                }
            })
        })
    }

    #[tokio::test]
    async fn a_hundred_who_ask_at_once_cost_one_decoding_and_one_scaling() {
        let stills = slow();
        let (stream, id) = camera(Codec::H264);
        let picture = publish(&stream, id, Codec::H264, vec![64]);
        let ask = |width| stills.get(&stream, picture.clone(), width);
        let asked = (0..100).map(|number| ask(if number % 2 == 0 { None } else { Some(320) }));
        for (number, still) in join_all(asked).await.into_iter().enumerate() {
            let expected = if number % 2 == 0 { (640, 300) } else { (320, 150) };
            assert_eq!(scale::tests::size(&still.unwrap().jpeg), expected);
        }
        assert_eq!((stills.decoded.load(Ordering::Relaxed), stills.scaled.load(Ordering::Relaxed)), (1, 1));
        // Who gives up leaves the others what was begun for it.
        let next = publish(&stream, id, Codec::H264, vec![32]);
        let given_up = tokio::time::timeout(Duration::from_millis(5), stills.get(&stream, next.clone(), None)).await;
        assert!(given_up.is_err());
        assert_eq!(scale::tests::size(&stills.get(&stream, next, None).await.unwrap().jpeg), (320, 300));
        assert_eq!(stills.decoded.load(Ordering::Relaxed), 2);
        // Late with an old picture in hand: the newer one is there.
        assert_eq!(scale::tests::size(&stills.get(&stream, picture, None).await.unwrap().jpeg), (320, 300));
        assert_eq!(stills.decoded.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_jpeg_camera_gives_its_own_bytes_and_few_widths_are_kept() {
        let stills = slow();
        let (stream, id) = camera(Codec::Jpeg);
        let bytes = scale::tests::halves(640, 480);
        let picture = publish(&stream, id, Codec::Jpeg, bytes.clone());
        assert_eq!(stills.get(&stream, picture.clone(), None).await.unwrap().jpeg, bytes);
        for width in (100..200).chain(100..104) {
            stills.get(&stream, picture.clone(), Some(width)).await.unwrap();
        }
        assert_eq!(stills.get(&stream, picture, Some(3840)).await.unwrap().jpeg, bytes);
        assert_eq!((stills.decoded.load(Ordering::Relaxed), stills.scaled.load(Ordering::Relaxed)), (0, 104));
        assert_eq!(stills.slot(&stream).lock().await.widths.len(), WIDTHS);
        drop(stream);
        let (other, _) = camera(Codec::Jpeg);
        stills.slot(&other);
        assert_eq!(stills.streams.lock().unwrap().len(), 1, "streams that are gone leave nothing");
    }

    #[tokio::test]
    async fn what_cannot_be_decoded_is_not_tried_by_everybody() {
        let stills = slow();
        let (stream, id) = camera(Codec::H264);
        let picture = publish(&stream, id, Codec::H264, vec![0]);
        let error = stills.get(&stream, picture.clone(), None).await.unwrap_err();
        assert_eq!(error.to_string(), "install this");
        let begin = Instant::now();
        for result in join_all((0..50).map(|_| stills.get(&stream, picture.clone(), Some(320)))).await {
            assert_eq!(result.unwrap_err().to_string(), "install this");
        }
        assert!(begin.elapsed() < FORGIVE);
        let better = publish(&stream, id, Codec::H264, vec![64]);
        assert!(stills.get(&stream, better, None).await.is_ok());
        assert_eq!(stills.decoded.load(Ordering::Relaxed), 1);

        let (stream, id) = camera(Codec::Jpeg);
        let broken = publish(&stream, id, Codec::Jpeg, b"no picture".to_vec());
        let error = stills.get(&stream, broken, Some(320)).await.unwrap_err();
        assert!(matches!(&error, StillError::Broken(text) if text.contains("cannot be decoded")), "{error}");
    }
}
