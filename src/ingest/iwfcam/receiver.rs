//! Media datagrams to tracks and samples.

use super::clock::Clock;
use super::config::Retransmission;
use super::reassembly::{Came, Reassembly, Whole};
use super::repair::Repair;
use super::sound::{self, Sound};
use super::wire::{Media, MediaStream};
use crate::ingest::session::{Output, Sample};
use crate::media::{AudioFormat, Codec, Format, TrackInfo, VideoFormat, jpeg};
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Places of the tracks in [`Output::Tracks`].
const VIDEO: usize = 0;
const AUDIO: usize = 1;
/// Ticks per second of pictures.
const VIDEO_RATE: i64 = 90_000;
/// Pictures may come so many ticks early by the camera's clock.
const MOST_BACK: i64 = 2 * VIDEO_RATE;
/// So long the first picture waits for a first block of sound (one comes every 128 ms), where it is not known whether
/// the camera has a microphone: tracks that are announced later do not reach those who watch already.
const WAIT_FOR_SOUND: Duration = Duration::from_millis(400);
/// More pictures than this do not wait.
const MOST_WAITING: usize = 16;
/// A camera that sent no sound for so long beside its pictures has no microphone.
const NO_MICROPHONE: Duration = Duration::from_secs(5);

/// The camera sends what this family cannot use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotJpeg;

/// What the pieces become.
#[derive(Debug)]
pub(super) struct Receiver {
    reassembly: Reassembly,
    repair: Repair,
    clock: Clock,
    sound: Sound,
    /// Whether the camera sends sound, as far as that is known.
    has_sound: Option<bool>,
    /// Size of the pictures that the announced track has, and whether sound was announced with it.
    announced: Option<((u16, u16), bool)>,
    /// Pictures that wait for the announcement, and since when.
    waiting: Option<(Instant, VecDeque<Sample>)>,
    size: (u16, u16),
    first_picture: Option<Instant>,
    last_ticks: i64,
    lost: bool,
    rate: Rate,
}

/// Pictures of the last second.
#[derive(Clone, Copy, Debug)]
struct Rate {
    since: Instant,
    pictures: u8,
    fps: u8,
}

impl Receiver {
    pub(super) fn new(retransmission: Retransmission, has_sound: Option<bool>, now: Instant) -> Self {
        let mut reassembly = Reassembly::default();
        let repair = Repair::new(retransmission, &mut reassembly);
        Self {
            reassembly,
            repair,
            clock: Clock::new(now),
            sound: Sound::default(),
            has_sound,
            announced: None,
            waiting: None,
            size: (0, 0),
            first_picture: None,
            last_ticks: i64::MIN,
            lost: false,
            rate: Rate { since: now, pictures: 0, fps: 0 },
        }
    }

    /// After a login: numbers begin anew.
    pub(super) fn clear(&mut self) {
        self.reassembly.clear();
        self.sound.clear();
    }

    /// Whether the camera sends sound, as far as that is known.
    pub(super) fn has_sound(&self) -> Option<bool> {
        self.has_sound
    }

    /// Takes a datagram of our session.
    pub(super) fn media(&mut self, piece: &Media<'_>, now: Instant, out: &mut VecDeque<Output>) -> Result<(), NotJpeg> {
        match piece.stream {
            MediaStream::Video => {
                let became = self.reassembly.push(piece, now);
                tracing::trace!(number = piece.number, fragment = piece.fragment, ?became, "piece");
            }
            MediaStream::Audio => {
                self.reassembly.other(piece.number);
                let units = self.sound.block(piece, now, &mut self.clock);
                if !units.is_empty() {
                    self.has_sound = Some(true);
                    self.announce(now, out);
                }
                if self.announced.is_some_and(|(_, sound)| sound) {
                    out.extend(units.into_iter().map(|unit| Output::Media(AUDIO, unit)));
                }
            }
            MediaStream::Other(_) => {}
        }
        self.advance(now, out)
    }

    /// Tells what is whole, and what is lost, by now.
    pub(super) fn advance(&mut self, now: Instant, out: &mut VecDeque<Output>) -> Result<(), NotJpeg> {
        while let Some(came) = self.reassembly.poll(now) {
            match came {
                Came::Picture(whole) => self.picture(whole, now, out),
                // A camera that sent pictures does not change its codec: something went wrong with one picture.
                Came::AnnexB if self.first_picture.is_none() => return Err(NotJpeg),
                Came::AnnexB => self.lose(out),
                Came::Lost { number, missing } => {
                    tracing::debug!(number, missing, "a picture did not come whole");
                    self.lose(out);
                }
            }
        }
        if self.has_sound.is_none() && self.first_picture.is_some_and(|first| now >= first + NO_MICROPHONE) {
            self.has_sound = Some(false);
        }
        self.announce(now, out);
        Ok(())
    }

    /// When [`advance`](Self::advance) has something to do, or [`request`](Self::request).
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let announcement = self.waiting.as_ref().map(|(since, _)| *since + WAIT_FOR_SOUND);
        let pieces = [self.reassembly.deadline(now), self.repair.deadline(&self.reassembly)];
        pieces.into_iter().chain([announcement]).flatten().min()
    }

    /// Asks for pieces that did not come, if that is wanted and useful.
    pub(super) fn request(&mut self, session: u32, now: Instant) -> Option<Vec<u8>> {
        self.repair.request(&mut self.reassembly, session, self.rate.fps, now)
    }

    fn lose(&mut self, out: &mut VecDeque<Output>) {
        self.lost = true;
        out.push_back(Output::Lost(1));
    }

    fn picture(&mut self, whole: Whole, now: Instant, out: &mut VecDeque<Output>) {
        let (size, end) = match jpeg::parse(&whole.bytes) {
            Ok(picture) => ((picture.width, picture.height), picture.end),
            Err(error) => {
                tracing::debug!(number = whole.number, %error, "what came whole is no picture");
                return self.lose(out);
            }
        };
        self.size = size;
        self.first_picture.get_or_insert(now);
        self.rate.count(now);
        let ticks = self.clock.at(whole.clock, whole.begun) * VIDEO_RATE / 1_000_000;
        // A little back is jitter, more is a clock that started anew.
        let back = self.last_ticks.saturating_sub(ticks);
        self.lost |= back > MOST_BACK;
        let ticks = if (0..=MOST_BACK).contains(&back) { self.last_ticks + 1 } else { ticks };
        self.last_ticks = ticks;
        let payload = whole.bytes.slice(..end.min(whole.bytes.len()));
        let sample = Sample { ticks, random_access: true, discontinuity: std::mem::take(&mut self.lost), payload };
        let (_, waiting) = self.waiting.get_or_insert_with(|| (now, VecDeque::new()));
        waiting.push_back(sample);
        self.announce(now, out);
    }

    /// Announces the tracks as soon as they are known or the wait is over, again when they change, and lets go of the
    /// pictures that waited.
    fn announce(&mut self, now: Instant, out: &mut VecDeque<Output>) {
        let Some(first) = self.first_picture else { return };
        let many = self.waiting.as_ref().is_some_and(|(_, waiting)| waiting.len() >= MOST_WAITING);
        let over = self.has_sound.is_some() || many || now >= first + WAIT_FOR_SOUND;
        if !over && self.announced.is_none() {
            return;
        }
        let tracks = (self.size, self.has_sound == Some(true));
        if self.announced != Some(tracks) {
            self.announced = Some(tracks);
            let mut infos = vec![video(self.size)];
            infos.extend(tracks.1.then(audio));
            out.push_back(Output::Tracks(infos));
        }
        let waiting = self.waiting.take().map(|(_, waiting)| waiting).unwrap_or_default();
        out.extend(waiting.into_iter().map(|sample| Output::Media(VIDEO, sample)));
    }
}

impl Rate {
    fn count(&mut self, now: Instant) {
        if now >= self.since + Duration::from_secs(1) {
            *self = Self { since: now, pictures: 0, fps: self.pictures };
        }
        self.pictures = self.pictures.saturating_add(1);
    }
}

fn video((width, height): (u16, u16)) -> TrackInfo {
    let format = VideoFormat {
        width: width.into(),
        height: height.into(),
        pixel_aspect: (1, 1),
        reorder_depth: Some(0),
        ..VideoFormat::default()
    };
    TrackInfo { codec: Codec::Jpeg, clock_rate: VIDEO_RATE as u32, format: Format::Video(format) }
}

fn audio() -> TrackInfo {
    let format = AudioFormat { channels: 1, sample_rate: sound::RATE, config: Bytes::new() };
    TrackInfo { codec: Codec::Pcmu, clock_rate: sound::RATE, format: Format::Audio(format) }
}
