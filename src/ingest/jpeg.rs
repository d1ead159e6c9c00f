//! JPEG pictures on their way to the bus: each is checked by a real decode, brought into the form that the bus
//! promises, and turned the right way up.
//!
//! What is inside the promise already is passed on byte for byte. RFC 2435 receivers show anything else destroyed or
//! not at all, and say nothing (measured: optimised Huffman tables come out at 4.7 dB, 4:4:4 and grey as nothing).
//!
//! | picture | treatment |
//! |---------|-----------|
//! | baseline 4:2:0 or 4:2:2 (2x1) with the standard Huffman tables, with restart markers or without, of any size | [`Treatment::Untouched`] |
//! | the same without its tables, as in AVI and in what USB cameras send | [`Treatment::Lossless`]: the tables are put in |
//! | the same without EOI, all of its coded bytes there | [`Treatment::Lossless`]: EOI is put behind it |
//! | the same with other tables, progressive, or in several scans | [`Treatment::Lossless`]: the same coefficients, coded anew |
//! | to be turned, its sides whole multiples of its blocks (16 pixels where halved, otherwise 8) | [`Treatment::Lossless`] |
//! | to be turned, any other size; a quarter turn of 4:2:2 | [`Treatment::Recoded`] |
//! | 4:4:4, 4:4:0, 4:1:1, grey, ffmpeg's 4:2:2 (2x2, 1x2, 1x2), two quantisation tables for chroma | [`Treatment::Recoded`] as 4:2:0 |
//! | cut off, damaged so that a decoder notices, no JPEG | [`Rejected`] |
//! | dearer than any camera's, see below | [`Rejected`], before anything of it is decoded |
//!
//! Bytes behind EOI are cut off. What Exif says of the orientation is followed, as every browser does, where it is a
//! plain turn: phones that push their pictures hold their sensor sideways. A mirrored orientation is not.
//!
//! A JPEG that is cheap to send can be dear to decode: a scan of a few bytes goes through the whole picture, and a picture
//! in several scans is held whole as coefficients, two bytes a sample. So the markers tell what a picture costs:
//!
//! | | at most |
//! |-|---------|
//! | pixels | 33.5 million: 8K |
//! | samples of a picture in several scans | 25 million: 4K of 4:4:4, 16 megapixels of 4:2:0; 50 MB of coefficients |
//! | scans, if not progressive | one for each component |
//! | scans, if progressive | 64 (encoders make six of grey and ten of colour), and samples times scans 252 million |
//!
//! The dearest that are left take 0.1 to 0.4 s if they are not to be turned (measured). Pictures of more than 4 million
//! samples times scans do not keep a camera's thread from other cameras meanwhile, and those of them that
//! need memory share a budget of about 200 MB: who finds it empty waits.

pub(super) mod apart;
mod exif;

use crate::media::jpeg::{self, JpegError, Picture};
use crate::media::{Format, TrackInfo, VideoFormat};
use bytes::Bytes;
use std::cell::RefCell;
use std::sync::Arc;
use turbojpeg::{
    Compressor, Decompressor, Image, PixelFormat, ScalingFactor, Subsamp, Transform, TransformOp, Transformer,
};

/// The largest picture that is decoded: 8K.
const MOST_PIXELS: usize = 32 << 20;
/// No side is longer, in pixels: libx264 codes none that is (measured: 16x16384 it does, 16x16400 not).
const LONGEST_SIDE: u16 = 16_384;
/// Samples of a picture that a decoder has to hold whole.
const MOST_HELD: usize = 24 << 20;
/// Scans of a progressive picture. The standard has no limit that helps.
const MOST_SCANS: u8 = 64;
/// Scans times samples: what encoders make by themselves, at the largest size.
const MOST_WORK: usize = 10 * MOST_HELD;
/// Scans times samples that are decoded where they come: every picture of up to 1920x1080 in one scan but for 4:4:4.
const AT_ONCE: usize = 4 << 20;
/// A picture without EOI is copied to look whether the rest is there; none of a camera is larger.
const MOST_BYTES: usize = 32 << 20;
const EOI: [u8; 2] = [0xff, 0xd9];
/// Quality of pictures that have to be coded anew (libjpeg's scale): not visibly worse than the camera's.
const QUALITY: i32 = 90;

/// How far pictures are turned, clockwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rotation {
    /// Not at all.
    #[default]
    None,
    /// 90 degrees.
    Quarter,
    /// 180 degrees.
    Half,
    /// 270 degrees.
    ThreeQuarters,
}

impl Rotation {
    /// The rotation by so many degrees clockwise: 0, 90, 180, 270.
    pub fn from_degrees(degrees: u16) -> Option<Self> {
        Some(match degrees {
            0 => Self::None,
            90 => Self::Quarter,
            180 => Self::Half,
            270 => Self::ThreeQuarters,
            _ => return None,
        })
    }

    /// This turn after that one.
    fn after(self, first: Self) -> Self {
        let quarters = |rotation| match rotation {
            Self::None => 0,
            Self::Quarter => 1,
            Self::Half => 2,
            Self::ThreeQuarters => 3,
        };
        match (quarters(self) + quarters(first)) % 4 {
            0 => Self::None,
            1 => Self::Quarter,
            2 => Self::Half,
            _ => Self::ThreeQuarters,
        }
    }

    fn op(self) -> TransformOp {
        match self {
            Self::None => TransformOp::None,
            Self::Quarter => TransformOp::Rot90,
            Self::Half => TransformOp::Rot180,
            Self::ThreeQuarters => TransformOp::Rot270,
        }
    }
}

/// What was done to a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Nothing: its bytes are the camera's.
    Untouched,
    /// Coded anew from the same coefficients: its pixels are the camera's.
    Lossless,
    /// Decoded and coded again.
    Recoded,
}

/// A picture in the form that the bus promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The whole picture, SOI to EOI.
    pub bytes: Bytes,
    /// Width in pixels, after turning.
    pub width: u16,
    /// Height in pixels, after turning.
    pub height: u16,
    /// What was done to it.
    pub treatment: Treatment,
}

/// Why a picture is not published.
#[derive(Debug, thiserror::Error)]
pub enum Rejected {
    /// Its markers are wrong.
    #[error(transparent)]
    Markers(#[from] JpegError),
    /// It is larger than anything we decode, or longer than anything an encoder takes.
    #[error("{width}x{height} pixels are too many")]
    TooLarge {
        /// In pixels.
        width: u16,
        /// In pixels.
        height: u16,
    },
    /// It is larger than anything that we hold as coefficients.
    #[error("{width}x{height} pixels are too many for a picture in several scans")]
    TooLargeInScans {
        /// In pixels.
        width: u16,
        /// In pixels.
        height: u16,
    },
    /// It goes through all of its pixels too often.
    #[error("{scans} scans are too many for a picture of {width}x{height} pixels")]
    TooManyScans {
        /// How many there are.
        scans: usize,
        /// In pixels.
        width: u16,
        /// In pixels.
        height: u16,
    },
    /// Its coded bytes do not decode.
    #[error("the picture does not decode: {0}")]
    Undecodable(#[from] turbojpeg::Error),
}

/// [Checks](check) the pictures of one track, and says once what it costs.
#[derive(Clone, Copy, Debug)]
pub struct Checker {
    rotation: Rotation,
    told: bool,
}

impl Checker {
    /// For pictures that are to be turned so far.
    pub fn new(rotation: Rotation) -> Self {
        Self { rotation, told: false }
    }

    /// Checks one picture and turns it.
    ///
    /// # Errors
    /// As [`check`].
    pub fn check(&mut self, bytes: Bytes) -> Result<Checked, Rejected> {
        let checked = check(bytes, self.rotation)?;
        if checked.treatment == Treatment::Recoded && !std::mem::replace(&mut self.told, true) {
            let Checked { width, height, .. } = checked;
            match self.rotation {
                Rotation::None => tracing::info!(
                    width,
                    height,
                    "the camera's pictures have a form that players do not read; each is coded anew"
                ),
                _ => tracing::info!(width, height, "pictures of this size or form cannot be turned without loss"),
            }
        }
        Ok(checked)
    }
}

impl Checked {
    /// With the Huffman tables that it leaves out, right behind SOI and the JFIF header that has to be first.
    fn with_tables(self) -> Self {
        let header = match self.bytes.get(2..6) {
            Some(&[0xff, 0xe0, high, low]) => 2 + usize::from(u16::from_be_bytes([high, low])),
            _ => 0,
        };
        let (start, rest) = self.bytes.split_at((2 + header).min(self.bytes.len()));
        let bytes = [start, &jpeg::standard_huffman(), rest].concat().into();
        Self { bytes, ..self }.at_least(Treatment::Lossless)
    }

    fn at_least(self, treatment: Treatment) -> Self {
        Self { treatment: if self.treatment == Treatment::Untouched { treatment } else { self.treatment }, ..self }
    }

    /// Has a track's description say what this picture is.
    pub fn describe(&self, info: &mut Arc<TrackInfo>) {
        let (width, height) = (u32::from(self.width), u32::from(self.height));
        if info.video().is_some_and(|video| (video.width, video.height, video.pixel_aspect) == (width, height, (1, 1)))
        {
            return;
        }
        let old = info.video().cloned().unwrap_or_default();
        let format = Format::Video(VideoFormat { width, height, pixel_aspect: (1, 1), reorder_depth: Some(0), ..old });
        *info = Arc::new(TrackInfo { format, ..(**info).clone() });
    }
}

/// Checks one picture and turns it; what follows its EOI is cut off.
///
/// # Errors
/// [`Rejected`] says what is wrong with it.
pub fn check(bytes: Bytes, rotation: Rotation) -> Result<Checked, Rejected> {
    let error = match jpeg::parse(&bytes) {
        Ok(picture) => return judge(&bytes, &picture, rotation),
        Err(error) => error,
    };
    // Some cameras leave EOI out. Whether it is all that is missing, decoding tells.
    if let JpegError::Short { .. } = error
        && bytes.len() <= MOST_BYTES
    {
        let ended: Bytes = [&bytes[..], &EOI].concat().into();
        if let Ok(picture) = jpeg::parse(&ended)
            && let Ok(checked) = judge(&ended, &picture, rotation)
        {
            return Ok(checked.at_least(Treatment::Lossless));
        }
    }
    Err(error.into())
}

/// Refuses what costs a decoder more than any camera's picture does. Answers scans times samples.
fn cost(picture: &Picture<'_>) -> Result<usize, Rejected> {
    let &Picture { width, height, scans, progressive, .. } = picture;
    if usize::from(width) * usize::from(height) > MOST_PIXELS || width.max(height) > LONGEST_SIDE {
        return Err(Rejected::TooLarge { width, height });
    }
    let samples = picture.samples();
    if held_whole(picture) && samples > MOST_HELD {
        return Err(Rejected::TooLargeInScans { width, height });
    }
    let most = if progressive { usize::from(MOST_SCANS) } else { picture.components.len() };
    let work = samples.saturating_mul(scans);
    if scans > most || progressive && work > MOST_WORK {
        return Err(Rejected::TooManyScans { scans, width, height });
    }
    Ok(work)
}

/// Whether a decoder has to hold all coefficients before it can show anything.
fn held_whole(picture: &Picture<'_>) -> bool {
    picture.progressive || picture.scans > 1 || !picture.interleaved
}

/// Checks a picture whose markers are right.
fn judge(bytes: &Bytes, picture: &Picture<'_>, rotation: Rotation) -> Result<Checked, Rejected> {
    let work = cost(picture)?;
    let whole = bytes.slice(..picture.end.min(bytes.len()));
    let marked = exif::rotation(&whole);
    let rotation = rotation.after(marked);
    // A mark that has been followed may not stay: what is shown by a browser would be turned once more.
    let stays = (rotation, marked) == (Rotation::None, Rotation::None) && picture.rtp_form().is_some();
    let decode = || decode(whole, picture, rotation, stays);
    match work {
        0..=AT_ONCE => decode(),
        _ if stays => apart::apart(decode),
        // Coefficients, turned coefficients, pixels, turned pixels: at most two bytes for each unit of this.
        _ => apart::within(picture.samples().max(3 * usize::from(picture.width) * usize::from(picture.height)), decode),
    }
}

fn decode(whole: Bytes, picture: &Picture<'_>, rotation: Rotation, stays: bool) -> Result<Checked, Rejected> {
    let (width, height) = (picture.width, picture.height);
    with_codec(|codec| {
        codec.decode_small(&whole, width, height)?;
        if stays {
            let checked = Checked { bytes: whole, width, height, treatment: Treatment::Untouched };
            return Ok(if picture.has_huffman { checked } else { checked.with_tables() });
        }
        let (turned, treatment) = match lossless_sampling(picture).then(|| codec.transform(&whole, rotation)).flatten()
        {
            Some(bytes) => (bytes, Treatment::Lossless),
            None => (codec.recode(&whole, rotation)?, Treatment::Recoded),
        };
        let (width, height) = match rotation {
            Rotation::None | Rotation::Half => (width, height),
            Rotation::Quarter | Rotation::ThreeQuarters => (height, width),
        };
        Ok(Checked { bytes: turned.into(), width, height, treatment })
    })
}

/// libjpeg-turbo's working memory, one for each thread: it may not move between threads, and making it anew for each
/// picture costs as much as a small picture.
struct CodecMemory {
    decompressor: Decompressor,
    transformer: Transformer,
    compressor: Compressor,
    /// Pixels of the cheap decode.
    pixels: Vec<u8>,
}

fn with_codec<T>(work: impl FnOnce(&mut CodecMemory) -> Result<T, Rejected>) -> Result<T, Rejected> {
    thread_local! {
        static MEMORY: RefCell<Option<CodecMemory>> = const { RefCell::new(None) };
    }
    MEMORY.with_borrow_mut(|memory| {
        let made = match memory.take() {
            Some(made) => made,
            None => CodecMemory::new()?,
        };
        work(memory.insert(made))
    })
}

impl CodecMemory {
    fn new() -> Result<Self, Rejected> {
        let mut decompressor = Decompressor::new()?;
        decompressor.set_scan_limit(MOST_SCANS.into())?;
        let mut compressor = Compressor::new()?;
        compressor.set_quality(QUALITY)?;
        compressor.set_subsamp(Subsamp::Sub2x2)?;
        Ok(Self { decompressor, transformer: Transformer::new()?, compressor, pixels: Vec::new() })
    }

    /// Decodes at an eighth of the size, which still reads every coefficient: the cheapest full check there is (measured
    /// 0.3 ms for 640x480; a look at the header alone passes truncated pictures).
    fn decode_small(&mut self, bytes: &[u8], width: u16, height: u16) -> Result<(), Rejected> {
        let scale = ScalingFactor::ONE_EIGHTH;
        self.decompressor.set_scaling_factor(scale)?;
        let (width, height) = (scale.scale(width.into()), scale.scale(height.into()));
        self.pixels.resize(width * height, 0);
        let image =
            Image { pixels: self.pixels.as_mut_slice(), width, pitch: width, height, format: PixelFormat::GRAY };
        Ok(self.decompressor.decompress(bytes, image)?)
    }

    /// Turns, and codes the same coefficients with the standard tables; `None` where that cannot be done without loss.
    fn transform(&mut self, bytes: &[u8], rotation: Rotation) -> Option<Vec<u8>> {
        let mut transform = Transform::op(rotation.op());
        (transform.perfect, transform.copy_none) = (true, true);
        let made = self.transformer.transform_to_vec(&transform, bytes).ok()?;
        // Whether it is what the bus promises now: baseline, 4:2:0 or 4:2:2, the standard tables.
        let fits = jpeg::parse(&made).is_ok_and(|picture| picture.rtp_form().is_some());
        fits.then_some(made)
    }

    /// Decodes, turns and codes again as 4:2:0.
    fn recode(&mut self, bytes: &[u8], rotation: Rotation) -> Result<Vec<u8>, Rejected> {
        self.decompressor.set_scaling_factor(ScalingFactor::ONE)?;
        let header = self.decompressor.read_header(bytes)?;
        let (width, height) = (header.width, header.height);
        let format = PixelFormat::RGB;
        let mut pixels = vec![0; width * height * format.size()];
        let pitch = width * format.size();
        let image = Image { pixels: pixels.as_mut_slice(), width, pitch, height, format };
        self.decompressor.decompress(bytes, image)?;
        let (pixels, width, height) = turn(pixels, width, height, rotation);
        let pitch = width * format.size();
        Ok(self.compressor.compress_to_vec(Image { pixels: pixels.as_slice(), width, pitch, height, format })?)
    }
}

/// Whether the sampling stays what it is after a quarter turn, and is one that the bus promises.
fn lossless_sampling(picture: &Picture<'_>) -> bool {
    let factors: Vec<_> =
        picture.components.iter().map(|component| (component.horizontal, component.vertical)).collect();
    matches!(factors.as_slice(), [(2, 1 | 2) | (1, 2), (1, 1), (1, 1)])
}

/// Turns RGB pixels.
fn turn(pixels: Vec<u8>, width: usize, height: usize, rotation: Rotation) -> (Vec<u8>, usize, usize) {
    let (turned_width, turned_height) = match rotation {
        Rotation::None => return (pixels, width, height),
        Rotation::Half => (width, height),
        Rotation::Quarter | Rotation::ThreeQuarters => (height, width),
    };
    let mut turned = Vec::with_capacity(pixels.len());
    for y in 0..turned_height {
        for x in 0..turned_width {
            let (from_x, from_y) = match rotation {
                Rotation::None => (x, y),
                Rotation::Half => (width - 1 - x, height - 1 - y),
                Rotation::Quarter => (y, height - 1 - x),
                Rotation::ThreeQuarters => (width - 1 - y, x),
            };
            let at = (from_y * width + from_x) * 3;
            turned.extend_from_slice(pixels.get(at..at + 3).unwrap_or(&[0; 3]));
        }
    }
    (turned, turned_width, turned_height)
}

#[cfg(test)]
mod tests;
