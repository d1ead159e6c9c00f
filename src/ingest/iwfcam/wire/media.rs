//! Pictures, sound, and what was received of them.

use super::{ACKNOWLEDGEMENT, MEDIA, Profile, Reader, WireError};

/// The most media bytes of one datagram (C and D accept as many; V sends 1032).
pub const MOST_MEDIA: usize = 4096;
/// The most pieces of a picture (V).
pub const MOST_FRAGMENTS: usize = 2048;

/// Bytes between the header and whatever stands before the media.
const FIXED: usize = 16;

/// One datagram of media.
///
/// | bytes   | field    | meaning                                            | source  |
/// |---------|----------|----------------------------------------------------|---------|
/// | 8..12   | session  | the number of the login's answer                   | C V     |
/// | 12..14  | 1        | constant; not looked at                            | C V     |
/// | 14..16  | stream   | see [`MediaStream`]                                | C V     |
/// | 16..18  | number   | of the picture or block, +1 each, wraps at 65 535  | C D G   |
/// | 18..20  | fragment | of the picture, from 0                             | C D G   |
/// | 20..24  | m        | how many media bytes end the datagram              | C D G   |
/// | 24..    | extra    | length - 16 - m bytes, see [`PictureHead`] and [`Media::clock`] | C D G the rule, G V the content |
/// | then    | body     | m bytes                                            | C D G   |
///
/// There is no "last" flag: the first piece says how many there are, or else the JPEG must show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Media<'a> {
    /// Whose it is.
    pub session: u32,
    /// What it is a piece of.
    pub stream: MediaStream,
    /// Of which picture or block.
    pub number: u16,
    /// The piece's place in it, below [`MOST_FRAGMENTS`].
    pub fragment: u16,
    /// What the camera says before the media.
    pub extra: &'a [u8],
    /// The media, at most [`MOST_MEDIA`] bytes.
    pub body: &'a [u8],
}

/// What is sent beside one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaStream {
    /// 0: pictures.
    Video,
    /// 1, and 2 in V: sound.
    Audio,
    /// 3 and above: data (V).
    Other(u16),
}

/// The 16 bytes before the first piece of a picture.
///
/// | bytes  | field     | meaning                | source |
/// |--------|-----------|------------------------|--------|
/// | 24..28 | total     | bytes of the picture   | V      |
/// | 28..32 | fragments | how many pieces        | G V    |
/// | 32..34 | width     | pixels                 | G V    |
/// | 34..36 | height    | pixels                 | G V    |
/// | 36..40 | clock     | the camera's, ms       | V      |
///
/// Nobody wrote down whether MJPEG models send it, so nothing may depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureHead {
    /// Bytes of the whole picture.
    pub total: u32,
    /// Its pieces.
    pub fragments: u32,
    /// Width in pixels.
    pub width: u16,
    /// Height in pixels.
    pub height: u16,
    /// The camera's clock in milliseconds.
    pub clock: u32,
}

/// What a client has received and what it misses: a header of 8 bytes, then items of 8.
///
/// | bytes  | field   | meaning                                          | source |
/// |--------|---------|--------------------------------------------------|--------|
/// | 8..12  | session |                                                  | G V    |
/// | 12     | fps     | pictures per second that the client shows        | G V    |
/// | 13..15 | zero    |                                                  | G V    |
/// | 15     | n       | number of items                                  | G V    |
/// | 16..   | items   | see [`Item`]                                     | G V    |
///
/// MJPEG models send without ever being told what arrived (C D). Whether they send missing pieces again is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// Whose it is.
    pub session: u32,
    /// Pictures per second that the client shows.
    pub fps: u8,
    /// At most 255.
    pub items: Vec<Item>,
}

/// One thing received or missed. Eight bytes: kind (1 received, 0 missing), detail (2 with received, else 0), u16
/// stream, u16 number, u16 fragment (0xffff with received). Received: G and V have the same bytes; missing: V.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// The picture of that number is whole.
    Received {
        /// Its number.
        number: u16,
    },
    /// A piece did not come.
    Missing {
        /// 0 for pictures.
        stream: u16,
        /// The picture's number.
        number: u16,
        /// The piece's place in it.
        fragment: u16,
    },
}

impl MediaStream {
    fn number(self) -> u16 {
        match self {
            Self::Video => 0,
            Self::Audio => 1,
            Self::Other(other) => other,
        }
    }
}

impl<'a> Media<'a> {
    /// A datagram with `m` beyond what is left of it, beyond [`MOST_MEDIA`], or with a piece beyond [`MOST_FRAGMENTS`]
    /// is dropped.
    pub(super) fn parse(mut body: Reader<'a>) -> Result<Self, WireError> {
        let session = body.u32("session number")?;
        let _one = body.u16("constant")?;
        let stream = match body.u16("stream")? {
            0 => MediaStream::Video,
            1 | 2 => MediaStream::Audio,
            other => MediaStream::Other(other),
        };
        let (number, fragment) = (body.u16("frame number")?, body.u16("fragment number")?);
        if usize::from(fragment) >= MOST_FRAGMENTS {
            return Err(WireError::Value { field: "fragment number", value: fragment.into() });
        }
        let media_bytes = body.u32("media bytes")?;
        let length = usize::try_from(media_bytes).ok().filter(|length| *length <= MOST_MEDIA);
        let length = length.ok_or(WireError::Value { field: "media bytes", value: media_bytes })?;
        let short = WireError::Short { field: "media", need: length, have: body.0.len() };
        let extra = body.bytes("extra", body.0.len().checked_sub(length).ok_or(short)?)?;
        Ok(Self { session, stream, number, fragment, extra, body: body.0 })
    }

    /// What stands before the first piece of a picture; `None` for later pieces, and where the camera leaves it out.
    pub fn picture_head(&self) -> Option<PictureHead> {
        if self.stream != MediaStream::Video || self.fragment != 0 || self.extra.len() != 16 {
            return None;
        }
        let mut extra = Reader(self.extra);
        Some(PictureHead {
            total: extra.u32("total").ok()?,
            fragments: extra.u32("fragments").ok()?,
            width: extra.u16("width").ok()?,
            height: extra.u16("height").ok()?,
            clock: extra.u32("clock").ok()?,
        })
    }

    /// The camera's clock in milliseconds, where it tells it: in a [`PictureHead`], or as the u32 before a block of
    /// sound (V).
    pub fn clock(&self) -> Option<u32> {
        match self.stream {
            MediaStream::Video => self.picture_head().map(|head| head.clock),
            MediaStream::Audio if self.extra.len() == 4 => Reader(self.extra).u32("clock").ok(),
            MediaStream::Audio | MediaStream::Other(_) => None,
        }
    }

    /// The datagram. `body` must not be longer than [`MOST_MEDIA`].
    pub fn write(&self, profile: Profile) -> Vec<u8> {
        let mut out = profile.peer(MEDIA, FIXED + self.extra.len() + self.body.len());
        out.u32(self.session);
        for field in [1, self.stream.number(), self.number, self.fragment] {
            out.u16(field);
        }
        out.u32(self.body.len() as u32);
        out.bytes(self.extra);
        out.bytes(self.body);
        out.0
    }
}

impl PictureHead {
    /// Its 16 bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let (words, sizes) = ([self.total, self.fragments], [self.width, self.height]);
        let words = words.iter().flat_map(|word| word.to_le_bytes());
        words.chain(sizes.iter().flat_map(|size| size.to_le_bytes())).chain(self.clock.to_le_bytes()).collect()
    }
}

impl Acknowledgement {
    pub(super) fn parse(mut body: Reader<'_>) -> Result<Self, WireError> {
        let (session, fps) = (body.u32("session number")?, body.u8("pictures per second")?);
        body.bytes("zero", 2)?;
        let count = body.u8("number of items")?;
        let items: Result<Vec<_>, _> = (0..count).map(|_| Item::parse(&mut body)).collect();
        Ok(Self { session, fps, items: items?.into_iter().flatten().collect() })
    }

    /// The datagram, with the first 255 of its items.
    pub fn write(&self, profile: Profile) -> Vec<u8> {
        let count = u8::try_from(self.items.len()).unwrap_or(u8::MAX);
        let mut out = profile.peer(ACKNOWLEDGEMENT, 8 + 8 * usize::from(count));
        out.u32(self.session);
        out.u8(self.fps);
        out.zeros(2);
        out.u8(count);
        for item in self.items.iter().take(count.into()) {
            let (kind, fields) = match *item {
                Item::Received { number } => ([1, 2], [0, number, u16::MAX]),
                Item::Missing { stream, number, fragment } => ([0, 0], [stream, number, fragment]),
            };
            out.bytes(&kind);
            fields.iter().for_each(|field| out.u16(*field));
        }
        out.0
    }
}

impl Item {
    /// `None` is an item of a kind that nobody knows.
    fn parse(body: &mut Reader<'_>) -> Result<Option<Self>, WireError> {
        let kind = body.array::<2>("item")?;
        let (stream, number) = (body.u16("item's stream")?, body.u16("item's number")?);
        let fragment = body.u16("item's fragment")?;
        Ok(match kind {
            [1, 2] => Some(Self::Received { number }),
            [0, 0] => Some(Self::Missing { stream, number, fragment }),
            _ => None,
        })
    }
}
