//! What the camera sees and hears: JPEG pictures with a counter in each, and blocks of ADPCM.

use crate::media::adpcm::{self, State};
use crate::media::jpeg;
use crate::simulate::SimulateError;
use std::sync::Arc;
use turbojpeg::{Image, PixelFormat, Subsamp};

/// Samples of a block of sound: 128 ms at 8 kHz.
const BLOCK: usize = 1024;

/// Pictures in a loop.
#[derive(Clone, Debug)]
pub struct Scene {
    pictures: Arc<[Vec<u8>]>,
}

impl Scene {
    /// Pictures in a loop, at least one; each must begin with FF D8.
    pub fn new(pictures: Vec<Vec<u8>>) -> Option<Self> {
        let good = !pictures.is_empty() && pictures.iter().all(|picture| picture.starts_with(&[0xff, 0xd8]));
        good.then(|| Self { pictures: pictures.into() })
    }

    /// Bars that move before a gradient: pictures of that size that need no footage. 640x480 are about 13 kB each, as
    /// cameras of this family send.
    ///
    /// # Errors
    /// An encoder that cannot be used.
    pub fn bars(width: u16, height: u16, count: u32) -> Result<Self, SimulateError> {
        let pictures: Result<Vec<_>, _> =
            (0..count.max(1)).map(|n| bars(width.into(), height.into(), n, count.max(1))).collect();
        let pictures = pictures.map_err(|error| SimulateError::System(std::io::Error::other(error)))?;
        Ok(Self { pictures: pictures.into() })
    }

    /// Width and height of the first picture; zero if it is none.
    pub fn size(&self) -> (u16, u16) {
        let first = self.pictures.first().and_then(|picture| jpeg::parse(picture).ok());
        first.map_or((0, 0), |picture| (picture.width, picture.height))
    }

    /// The picture of that number since the camera was switched on, which is also written into it: in a COM segment
    /// (`iwf:frame=N`) right behind SOI, which no decoder shows.
    pub fn picture(&self, counter: u64) -> Vec<u8> {
        let index = usize::try_from(counter % self.pictures.len() as u64).unwrap_or_default();
        let picture = self.pictures.get(index).map(Vec::as_slice).unwrap_or_default();
        let text = format!("iwf:frame={counter}");
        let length = (text.len() + 2) as u16;
        let (start, rest) = picture.split_at(picture.len().min(2));
        [start, &[0xff, 0xfe], &length.to_be_bytes(), text.as_bytes(), rest].concat()
    }

    /// The number in a picture.
    pub fn counter(picture: &[u8]) -> Option<u64> {
        let text = picture.strip_prefix(&[0xff, 0xd8, 0xff, 0xfe, 0x00])?;
        let (length, text) = text.split_first()?;
        let text = text.get(..usize::from(*length).checked_sub(2)?)?;
        std::str::from_utf8(text).ok()?.strip_prefix("iwf:frame=")?.parse().ok()
    }
}

fn bars(width: usize, height: usize, n: u32, count: u32) -> turbojpeg::Result<Vec<u8>> {
    let shift = n as usize * width / count as usize;
    let mut pixels = Vec::with_capacity(width * height * 3);
    // A little noise, always the same, so that pictures are as long as those of a real sensor.
    let mut noise = 0x1234_5678_u32 ^ n;
    for y in 0..height {
        for x in 0..width {
            noise ^= noise << 13;
            noise ^= noise >> 17;
            noise ^= noise << 5;
            let bar = ((x + shift) * 8 / width).is_multiple_of(2) && (height / 3..height * 2 / 3).contains(&y);
            let base = if bar { 200 } else { (x * 160 / width) as u32 };
            let light = base + noise % 24;
            pixels.extend([light as u8, (light / 2 + (y * 100 / height) as u32) as u8, 90]);
        }
    }
    let image = Image { pixels: pixels.as_slice(), width, pitch: width * 3, height, format: PixelFormat::RGB };
    Ok(turbojpeg::compress(image, 60, Subsamp::Sub2x2)?.to_vec())
}

/// What the camera hears, in a loop.
#[derive(Clone, Debug)]
pub struct Sound {
    /// 8 kHz.
    samples: Arc<[i16]>,
    at: usize,
    state: State,
    running: bool,
}

impl Sound {
    /// Samples at 8 kHz in a loop. With `running`, a block's header goes on where the last block ended; without, it is
    /// zero, as in the vendor's code.
    pub fn new(samples: impl Into<Arc<[i16]>>, running: bool) -> Self {
        Self { samples: samples.into(), at: 0, state: State::default(), running }
    }

    /// A tone of 440 Hz.
    pub fn tone(running: bool) -> Self {
        let angle = |n: u32| f64::from(n) * 440.0 * std::f64::consts::TAU / 8000.0;
        Self::new((0..8000).map(|n| (angle(n).sin() * 6000.0) as i16).collect::<Vec<_>>(), running)
    }

    /// The next 128 ms.
    pub fn block(&mut self) -> Vec<u8> {
        let samples: Vec<i16> = self.samples.iter().cycle().skip(self.at).take(BLOCK).copied().collect();
        self.at = (self.at + BLOCK) % self.samples.len().max(1);
        if !self.running {
            self.state = State::default();
        }
        adpcm::encode(&mut self.state, &samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_like_a_cameras_and_carry_their_number() {
        let scene = Scene::bars(640, 480, 4).unwrap();
        for counter in [0, 1, 7, 123_456_789] {
            let picture = scene.picture(counter);
            let parsed = jpeg::parse(&picture).unwrap();
            assert_eq!((parsed.width, parsed.height, parsed.end), (640, 480, picture.len()));
            assert!(parsed.rtp_form().is_some(), "4:2:0 with the standard tables");
            assert_eq!(Scene::counter(&picture), Some(counter));
            assert!((8_000..20_000).contains(&picture.len()), "{} bytes", picture.len());
        }
        assert_ne!(scene.picture(0)[20..], scene.picture(1)[20..]);
        assert_eq!(Scene::counter(&[0xff, 0xd8, 0xff, 0xd9]), None);
        assert!(Scene::new(Vec::new()).is_none());
    }

    #[test]
    fn a_tone_has_blocks_of_516_bytes() {
        for running in [false, true] {
            let mut tone = Sound::tone(running);
            let blocks = [tone.block(), tone.block()];
            assert!(blocks.iter().all(|block| block.len() == 516));
            assert_eq!(blocks[1][..3] == [0, 0, 0], !running);
        }
    }
}
