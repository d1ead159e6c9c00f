//! Films whose pictures carry their number as blocks of black and white, made by ffmpeg when a test needs them.

use super::tool;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Side of a block in pixels: large enough to survive any quantiser.
const BLOCK: usize = 16;
/// Bits of a number, the highest first.
const BITS: usize = 12;
/// The part of a picture that holds the number, for ffmpeg.
pub(crate) const STRIP: &str = "crop=192:16:0:0";
const STRIP_BYTES: usize = BITS * BLOCK * BLOCK;

/// How a film is.
#[derive(Clone, Debug)]
pub(crate) struct Film {
    pub(crate) pictures: u32,
    pub(crate) rate: u32,
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// ffmpeg's options for the picture.
    pub(crate) video: &'static str,
    /// ffmpeg's options for the sound: a sine of 48 kHz.
    pub(crate) audio: Option<&'static str>,
    /// Rows of noise below the number: every picture costs.
    pub(crate) noise: usize,
    /// Rows of noise below that which stands still: key pictures cost.
    pub(crate) detail: usize,
}

/// x264 as cameras use it: a key picture every 4 s at 25 pictures a second and no other.
pub(crate) const PLAIN: &str =
    "-c:v libx264 -preset ultrafast -bf 0 -g 100 -keyint_min 100 -sc_threshold 0 -profile:v baseline";
/// The same with three B pictures in a pyramid.
pub(crate) const B_PICTURES: &str =
    "-c:v libx264 -preset veryfast -bf 3 -b_strategy 0 -g 100 -keyint_min 100 -sc_threshold 0";

impl Default for Film {
    fn default() -> Self {
        Self { pictures: 400, rate: 25, width: 320, height: 240, video: PLAIN, audio: None, noise: 16, detail: 0 }
    }
}

/// A film in a directory of its own.
#[derive(Debug)]
pub(crate) struct Reel {
    dir: TempDir,
}

impl Reel {
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("film.mp4")
    }

    /// For what a test leaves on disk.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Film {
    pub(crate) async fn shoot(self) -> Reel {
        tokio::task::spawn_blocking(move || self.encode()).await.unwrap()
    }

    fn encode(&self) -> Reel {
        let reel = Reel { dir: tempfile::tempdir().unwrap() };
        let mut command = Command::new("ffmpeg");
        command.args(tool::words("-hide_banner -nostats -v error -f rawvideo -pix_fmt gray"));
        command.args(["-s".into(), format!("{}x{}", self.width, self.height)]);
        command.args(["-r".into(), self.rate.to_string(), "-i".into(), "-".into()]);
        if let Some(audio) = self.audio {
            let seconds = f64::from(self.pictures) / f64::from(self.rate);
            command.args(["-f", "lavfi", "-i"]).arg(format!("sine=f=440:r=48000:d={seconds}"));
            command.args(tool::words(audio));
        }
        command.args(tool::words("-pix_fmt yuv420p")).args(tool::words(self.video));
        let mut child = command.arg(reel.path()).stdin(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let (mut random, mut still) = (1_u32, Vec::new());
        fill(&mut 7, self.detail * self.width, &mut still);
        for number in 0..self.pictures {
            let mut picture = Vec::with_capacity(self.width * self.height);
            let bits = (0..BITS).rev().flat_map(|bit| [if number >> bit & 1 == 1 { 235 } else { 16 }; BLOCK]);
            let mut strip: Vec<u8> = bits.collect();
            strip.resize(self.width, 16);
            (0..BLOCK).for_each(|_| picture.extend_from_slice(&strip));
            fill(&mut random, self.noise * self.width, &mut picture);
            picture.extend_from_slice(&still);
            // A bar that moves, so that pictures differ everywhere.
            let mut line = vec![90; self.width];
            let bar = number as usize * 8 % (self.width - 8);
            line[bar..bar + 8].fill(220);
            (BLOCK + self.noise + self.detail..self.height).for_each(|_| picture.extend_from_slice(&line));
            pipe.write_all(&picture).unwrap();
        }
        drop(pipe);
        assert!(child.wait().unwrap().success(), "ffmpeg does not encode the film");
        reel
    }
}

/// Appends so many bytes of noise.
fn fill(random: &mut u32, bytes: usize, out: &mut Vec<u8>) {
    for _ in 0..bytes / 4 {
        *random ^= *random << 13;
        *random ^= *random >> 17;
        *random ^= *random << 5;
        out.extend_from_slice(&random.to_le_bytes());
    }
}

/// The number in the luma of a picture of that stride, or in a [`STRIP`] of it.
pub(crate) fn number(luma: &[u8], stride: usize) -> u32 {
    let middle = luma.get(BLOCK / 2 * stride..).unwrap_or_default();
    (0..BITS).fold(0, |number, bit| {
        number << 1 | u32::from(middle.get(bit * BLOCK + BLOCK / 2).is_some_and(|pixel| *pixel > 127))
    })
}

/// The numbers of pictures that ffmpeg wrote as raw grey [`STRIP`]s.
pub(crate) fn numbers(strips: &[u8]) -> Vec<u32> {
    assert!(strips.len().is_multiple_of(STRIP_BYTES));
    strips.chunks(STRIP_BYTES).map(|strip| number(strip, BITS * BLOCK)).collect()
}

/// Takes the VUI (and with it the frame rate and the reorder depth) out of an MP4 file's sequence parameter set, as
/// many cameras leave it out.
pub(crate) fn without_vui(file: &Path) {
    let mut mp4 = std::fs::read(file).unwrap();
    // Every box around the configuration shrinks with it; `moov` is the file's last box, so that no picture moves.
    let mut parents = Vec::new();
    let (mut at, mut end) = (0, mp4.len());
    let size = |mp4: &[u8], at: usize| u32::from_be_bytes(mp4[at..at + 4].try_into().unwrap()) as usize;
    for (name, header) in [
        ("moov", 8),
        ("trak", 8),
        ("mdia", 8),
        ("minf", 8),
        ("stbl", 8),
        ("stsd", 16),
        // The sample entry: 78 bytes of fields (ISO/IEC 14496-12 section 12.1.3).
        ("avc1", 8 + 78),
        ("avcC", 8),
    ] {
        while &mp4[at + 4..at + 8] != name.as_bytes() {
            at += size(&mp4, at);
            assert!(at < end, "no box {name}");
        }
        parents.push(at);
        end = at + size(&mp4, at);
        at += header;
    }
    assert_eq!(parents[0] + size(&mp4, parents[0]), mp4.len(), "moov is not last");
    // AVCDecoderConfigurationRecord (ISO/IEC 14496-15 section 5.3.3.1): five bytes, then one SPS behind its length.
    let start = at + 6;
    assert_eq!(mp4[at + 5] & 0x1f, 1);
    let length = usize::from(u16::from_be_bytes([mp4[start], mp4[start + 1]]));
    let sps = sps::without_vui(&mp4[start + 2..start + 2 + length]);
    let shrunk = length - sps.len();
    mp4[start..start + 2].copy_from_slice(&(sps.len() as u16).to_be_bytes());
    mp4.splice(start + 2..start + 2 + length, sps);
    for parent in parents {
        let new = (size(&mp4, parent) - shrunk) as u32;
        mp4[parent..parent + 4].copy_from_slice(&new.to_be_bytes());
    }
    std::fs::write(file, mp4).unwrap();
}

mod sps {
    //! Just enough of ITU-T H.264 section 7.3.2.1.1 to leave its end out.

    struct Bits<'a> {
        bytes: &'a [u8],
        at: usize,
    }

    impl Bits<'_> {
        fn bit(&mut self) -> u32 {
            let bit = self.bytes[self.at / 8] >> (7 - self.at % 8) & 1;
            self.at += 1;
            u32::from(bit)
        }

        fn ue(&mut self) -> u32 {
            let zeros = std::iter::repeat_with(|| self.bit()).take_while(|bit| *bit == 0).count();
            (0..zeros).fold(1, |value, _| value << 1 | self.bit()) - 1
        }
    }

    pub(crate) fn without_vui(nal: &[u8]) -> Vec<u8> {
        let (mut plain, mut zeros) = (Vec::new(), 0);
        for &byte in nal {
            // The third byte after two zeros is an emulation prevention byte.
            if zeros >= 2 && byte == 3 {
                zeros = 0;
                continue;
            }
            zeros = if byte == 0 { zeros + 1 } else { 0 };
            plain.push(byte);
        }
        let mut bits = Bits { bytes: &plain, at: 32 };
        bits.ue();
        if matches!(plain[1], 100 | 110 | 122 | 244) {
            assert_ne!(bits.ue(), 3, "4:4:4 is not expected");
            bits.ue();
            bits.ue();
            bits.bit();
            assert_eq!(bits.bit(), 0, "scaling lists are not expected");
        }
        bits.ue();
        match bits.ue() {
            0 => _ = bits.ue(),
            order => assert_eq!(order, 2, "picture order count type 1 is not expected"),
        }
        bits.ue();
        bits.bit();
        bits.ue();
        bits.ue();
        if bits.bit() == 0 {
            bits.bit();
        }
        bits.bit();
        if bits.bit() == 1 {
            (0..4).for_each(|_| _ = bits.ue());
        }
        // vui_parameters_present_flag becomes 0, then the stop bit.
        let end = bits.at;
        let mut out = plain[..end / 8 + 1].to_vec();
        let last = out.len() - 1;
        out[last] &= !(0xff_u8 >> (end % 8));
        let stop = end + 1;
        out.resize(stop / 8 + 1, 0);
        out[stop / 8] |= 0x80 >> (stop % 8);
        let mut nal = Vec::new();
        for byte in out {
            if byte <= 3 && nal.ends_with(&[0, 0]) {
                nal.push(3);
            }
            nal.push(byte);
        }
        nal
    }
}
