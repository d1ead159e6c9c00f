//! The clip every server sends, and its packets: RFC 6184 packetization-mode 1, framed for TCP (RFC 2326 10.12).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::stamp;

/// Largest RTP payload in bytes; the gateway's own limit, so that all compared programs send the same bytes.
pub const PAYLOAD: usize = 1200;

/// A picture's number stands in its upper left corner, this many bits wide, the highest first: white is one.
pub const NUMBER_BITS: u32 = 10;
/// Side of a bit's square in pixels.
pub const NUMBER_BLOCK: u32 = 16;
/// Length of the clip in seconds.
const SECONDS: u32 = 20;

/// What to encode: a moving test pattern with noise, one slice a picture, no B-frames, parameter sets at each key picture.
#[derive(Clone, Debug)]
pub struct Spec {
    /// `WIDTHxHEIGHT` in pixels.
    pub size: String,
    /// Pictures a second.
    pub fps: u32,
    /// Bit rate in kbit/s.
    pub kbps: u32,
    /// Seconds from one key picture to the next.
    pub gop_seconds: u32,
    /// With each picture's number in it, from 0.
    pub numbered: bool,
}

impl Spec {
    /// Where the clip lies in `folder`; encoded with ffmpeg on first use, 20 s long.
    ///
    /// # Errors
    /// ffmpeg is missing or fails.
    pub fn ensure(&self, folder: &Path) -> Result<PathBuf> {
        let Self { size, fps, kbps, gop_seconds, numbered } = self;
        let kind = if *numbered { "-numbered" } else { "" };
        let path = folder.join(format!("{size}-{fps}fps-{kbps}k-gop{gop_seconds}s{kind}.h264"));
        if path.exists() {
            return Ok(path);
        }
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let (rate, gop, part) = (format!("{kbps}k"), (fps * gop_seconds).to_string(), path.with_extension("part"));
        eprintln!("encoding {}", path.display());
        let status = Command::new("ffmpeg")
            .args(["-v", "error", "-y", "-f", "lavfi", "-i"])
            .arg(format!(
                "testsrc2=size={size}:rate={fps},noise=alls=6:allf=t{}",
                if *numbered { numbers() } else { String::new() }
            ))
            .args([
                "-t",
                &SECONDS.to_string(),
                "-pix_fmt",
                "yuv420p",
                "-c:v",
                "libx264",
                "-preset",
                "veryfast",
                "-profile:v",
                "main",
            ])
            .args(["-b:v", &rate, "-maxrate", &rate, "-bufsize", &rate, "-g", &gop, "-keyint_min", &gop])
            .args(["-sc_threshold", "0", "-bf", "0", "-x264-params", "repeat-headers=1:sliced-threads=0:slices=1"])
            .args(["-f", "h264"])
            .arg(&part)
            .status()
            .context("cannot start ffmpeg")?;
        ensure!(status.success(), "ffmpeg could not encode the clip");
        std::fs::rename(&part, &path)?;
        Ok(path)
    }
}

/// ffmpeg's filters that draw the number.
fn numbers() -> String {
    let bit = |k: u32| {
        let (x, value) = (k * NUMBER_BLOCK, 1 << (NUMBER_BITS - 1 - k));
        let square = |colour: &str, enable: &str| {
            format!(",drawbox=x={x}:y=0:w={NUMBER_BLOCK}:h={NUMBER_BLOCK}:color={colour}:t=fill:enable='{enable}'")
        };
        square("black", "1") + &square("white", &format!("bitand(n,{value})"))
    };
    (0..NUMBER_BITS).map(bit).collect()
}

/// One coded picture.
#[derive(Debug)]
struct Picture {
    /// Without start codes; parameter sets come before the slices.
    nals: Vec<Vec<u8>>,
    /// Where the stamp belongs: before the first slice.
    first_slice: usize,
}

/// A clip in memory, played in a loop.
#[derive(Debug)]
pub struct Clip {
    pictures: Vec<Picture>,
    /// The `a=fmtp` parameters of the SDP.
    fmtp: String,
    /// Pictures a second.
    pub fps: u32,
}

impl Clip {
    /// Reads an Annex B file that starts with an IDR picture.
    ///
    /// # Errors
    /// The file cannot be read, or is not such a clip.
    pub fn load(path: &Path, fps: u32) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut pictures = Vec::new();
        let mut nals: Vec<Vec<u8>> = Vec::new();
        for nal in split(&bytes) {
            let new_picture = match kind(nal) {
                1..=5 => nal.get(1).is_some_and(|b| b & 0x80 != 0), // first_mb_in_slice == 0
                6..=9 => true,
                _ => false,
            };
            if new_picture && nals.iter().any(|n| is_slice(n)) {
                pictures.push(picture(std::mem::take(&mut nals))?);
            }
            nals.push(nal.to_vec());
        }
        if nals.iter().any(|n| is_slice(n)) {
            pictures.push(picture(nals)?);
        }
        let first = pictures.first().context("the clip has no picture")?;
        let set = |t| {
            first.nals.iter().find(|n| kind(n) == t && n.len() > 3).context("the clip starts without parameter sets")
        };
        let (sps, pps) = (set(7)?, first.nals.iter().find(|n| kind(n) == 8).context("the clip starts without a PPS")?);
        let fmtp = format!(
            "packetization-mode=1;profile-level-id={:02X}{:02X}{:02X};sprop-parameter-sets={},{}",
            sps[1],
            sps[2],
            sps[3],
            BASE64_STANDARD.encode(sps),
            BASE64_STANDARD.encode(pps)
        );
        Ok(Self { pictures, fmtp, fps })
    }

    /// How many pictures it has.
    pub fn pictures(&self) -> usize {
        self.pictures.len()
    }

    /// The session description that camera and floor give.
    pub fn sdp(&self) -> String {
        format!(
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=clip\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\na=control:*\r\na=range:npt=now-\r\n\
             m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 {}\r\na=framerate:{}\r\na=control:trackID=0\r\n",
            self.fmtp, self.fps
        )
    }
}

fn kind(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |b| b & 0x1f)
}

fn is_slice(nal: &[u8]) -> bool {
    (1..=5).contains(&kind(nal))
}

fn picture(nals: Vec<Vec<u8>>) -> Result<Picture> {
    let Some(first_slice) = nals.iter().position(|n| is_slice(n)) else { bail!("a picture without a slice") };
    Ok(Picture { nals, first_slice })
}

/// NAL units of an Annex B stream, without start codes and trailing zeros.
fn split(bytes: &[u8]) -> Vec<&[u8]> {
    let starts: Vec<usize> = (0..bytes.len().saturating_sub(2)).filter(|&i| bytes[i..i + 3] == [0, 0, 1]).collect();
    let mut nals = Vec::with_capacity(starts.len());
    for (k, &start) in starts.iter().enumerate() {
        let mut nal = &bytes[start + 3..starts.get(k + 1).copied().unwrap_or(bytes.len())];
        while let [rest @ .., 0] = nal {
            nal = rest; // the first zero of a four-byte start code
        }
        if !nal.is_empty() {
            nals.push(nal);
        }
    }
    nals
}

/// Turns the clip into packets, the same for every session: one SSRC, one sequence of numbers.
#[derive(Debug)]
pub struct Packer {
    clip: Clip,
    next: u32,
    seq: u16,
    ssrc: u32,
    rtp_base: u32,
    packets: u32,
    octets: u32,
    framed: Vec<u8>,
}

impl Packer {
    /// Starts at the clip's first picture.
    pub fn new(clip: Clip) -> Self {
        let (seq, ssrc, rtp_base) = (fastrand::u16(..), fastrand::u32(..), fastrand::u32(..));
        Self { clip, next: 0, seq, ssrc, rtp_base, packets: 0, octets: 0, framed: Vec::with_capacity(1 << 20) }
    }

    /// The clip.
    pub fn clip(&self) -> &Clip {
        &self.clip
    }

    /// Microseconds from the start at which the next picture is due.
    pub fn due_us(&self) -> u64 {
        u64::from(self.next) * 1_000_000 / u64::from(self.clip.fps)
    }

    /// RTP-Info of the next picture, for a session with control URL `url`.
    pub fn rtp_info(&self, url: &str) -> String {
        format!("url={url};seq={};rtptime={}", self.seq, self.rtp_time())
    }

    fn rtp_time(&self) -> u32 {
        let ticks = u64::from(self.next) * 90_000 / u64::from(self.clip.fps);
        self.rtp_base.wrapping_add(ticks as u32)
    }

    /// Stamps the next picture with the time and gives its packets, `$`-framed on channels 0 and 1, in one piece. A sender
    /// report goes before the first picture and then every 5 s.
    pub fn next_picture(&mut self) -> &[u8] {
        let now_us = stamp::now_us();
        let rtp_time = self.rtp_time();
        self.framed.clear();
        if self.next.is_multiple_of(5 * self.clip.fps) {
            self.sender_report(now_us, rtp_time);
        }
        let sei = stamp::write(now_us, self.next);
        let picture = &self.clip.pictures[self.next as usize % self.clip.pictures.len()];
        let (before, slices) = picture.nals.split_at(picture.first_slice);
        let mut last = 0;
        for nal in before.iter().map(Vec::as_slice).chain([sei.as_slice()]).chain(slices.iter().map(Vec::as_slice)) {
            let mut packet = |parts: [&[u8]; 2]| {
                let size = 12 + parts[0].len() + parts[1].len();
                last = self.framed.len();
                self.framed.extend_from_slice(&[b'$', 0]);
                self.framed.extend_from_slice(&(size as u16).to_be_bytes());
                self.framed.extend_from_slice(&[0x80, 96]);
                self.framed.extend_from_slice(&self.seq.to_be_bytes());
                self.framed.extend_from_slice(&rtp_time.to_be_bytes());
                self.framed.extend_from_slice(&self.ssrc.to_be_bytes());
                self.framed.extend_from_slice(parts[0]);
                self.framed.extend_from_slice(parts[1]);
                self.seq = self.seq.wrapping_add(1);
                self.packets = self.packets.wrapping_add(1);
                self.octets = self.octets.wrapping_add(size as u32 - 12);
            };
            if nal.len() <= PAYLOAD {
                packet([nal, &[]]);
                continue;
            }
            let (indicator, kind) = (nal[0] & 0xe0 | 28, nal[0] & 0x1f);
            let fragments = nal[1..].chunks(PAYLOAD - 2);
            let end = fragments.len() - 1;
            for (i, fragment) in fragments.enumerate() {
                let flags = if i == 0 { 0x80 } else { 0 } | if i == end { 0x40 } else { 0 };
                packet([&[indicator, flags | kind], fragment]);
            }
        }
        self.framed[last + 5] |= 0x80; // marker: the picture ends here
        self.next = self.next.wrapping_add(1);
        &self.framed
    }

    fn sender_report(&mut self, now_us: u64, rtp_time: u32) {
        const UNIX_TO_NTP: u64 = 2_208_988_800;
        let fraction = ((now_us % 1_000_000) << 32) / 1_000_000;
        self.framed.extend_from_slice(&[b'$', 1, 0, 28, 0x80, 200, 0, 6]);
        for word in
            [self.ssrc, (now_us / 1_000_000 + UNIX_TO_NTP) as u32, fraction as u32, rtp_time, self.packets, self.octets]
        {
            self.framed.extend_from_slice(&word.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receiver::Receiver;

    fn clip() -> Clip {
        let mut bytes = Vec::new();
        for number in 0..4u8 {
            if number % 2 == 0 {
                bytes.extend_from_slice(&[0, 0, 0, 1, 0x67, 77, 0, 31, 0, 0, 0, 1, 0x68, 9]);
            }
            bytes.extend_from_slice(&[0, 0, 1, if number % 2 == 0 { 0x65 } else { 0x41 }, 0x88]);
            bytes.extend_from_slice(&[7; 3000]);
        }
        let path = std::env::temp_dir().join(format!("fan-out-test-{}.h264", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        let clip = Clip::load(&path, 25).unwrap();
        std::fs::remove_file(path).unwrap();
        clip
    }

    #[test]
    fn what_the_packer_writes_the_receiver_reads() {
        let mut packer = Packer::new(clip());
        assert_eq!(packer.clip.pictures.len(), 4);
        assert!(packer.clip.sdp().contains("profile-level-id=4D001F"));
        let mut receiver = Receiver::new(0, None);
        for _ in 0..6 {
            let mut framed = packer.next_picture().to_vec();
            let now = stamp::now_us();
            while !framed.is_empty() {
                let size = 4 + usize::from(u16::from_be_bytes([framed[2], framed[3]]));
                if framed[1] == 0 {
                    receiver.packet(&framed[4..size], now);
                }
                framed.drain(..size);
            }
        }
        assert_eq!((receiver.seen.pictures, receiver.seen.stamped, receiver.seen.damaged), (6, 6, 0));
        assert_eq!((receiver.seen.first, receiver.seen.last, receiver.seen.missing), (Some(0), Some(5), 0));
        assert!(receiver.seen.first_key_ms.is_some());
    }
}
