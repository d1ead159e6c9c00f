//! A camera without a network: puts synthetic pictures onto a bus.

use bytes::Bytes;
use fanlight::bus::{Bus, Device, DeviceOptions, Limits, Stream, SubStream, TrackId, Upstream};
use fanlight::media::{AccessUnit, AudioFormat, Codec, Format, MediaTime, TrackInfo, VideoFormat};
use std::sync::Arc;
use std::time::Duration;

/// SPS and PPS of `ffmpeg -f lavfi -i testsrc2=size=320x240:rate=25 -c:v libx264 -profile:v baseline`, without VUI
/// timing of note.
pub const SPS: &[u8] =
    &[0x67, 0x42, 0xc0, 0x0d, 0xda, 0x05, 0x07, 0xe8, 0x40, 0, 0, 3, 0, 0x40, 0, 0, 0x0c, 0x83, 0xc5, 0x0a, 0xa8];
pub const PPS: &[u8] = &[0x68, 0xce, 0x0f, 0xc8];

pub struct Publisher {
    pub device: Arc<Device>,
    pub stream: Arc<Stream>,
    video: TrackId,
    audio: Option<TrackId>,
    infos: Vec<Arc<TrackInfo>>,
    /// Time of the next picture.
    pub now: MediaTime,
    /// Number of the next picture, written into its first bytes.
    pub number: u32,
    /// Pictures from one key picture to the next.
    pub gop: u32,
    /// Bytes of a picture.
    pub size: usize,
    pub key_size: usize,
}

pub const FRAME: Duration = Duration::from_millis(40);

impl Publisher {
    /// A camera on the bus that has announced its tracks and sent nothing yet.
    pub fn new(bus: &Bus, name: &str, with_audio: bool) -> Self {
        let stream = Stream::new(name, Limits::default());
        let device = Device::new(DeviceOptions {
            name: name.into(),
            family: "rtsp",
            main: Arc::clone(&stream),
            sub: SubStream::Main,
            upstream: Upstream::new(1),
            viewers: Arc::default(),
        });
        bus.add(Arc::clone(&device));
        let video = VideoFormat {
            width: 320,
            height: 240,
            pixel_aspect: (1, 1),
            frame_rate: Some(25.0),
            reorder_depth: Some(0),
            parameter_sets: vec![Bytes::from_static(SPS), Bytes::from_static(PPS)],
        };
        let mut infos = vec![TrackInfo { codec: Codec::H264, clock_rate: 90_000, format: Format::Video(video) }];
        if with_audio {
            let audio = AudioFormat { channels: 1, sample_rate: 8_000, config: Bytes::new() };
            infos.push(TrackInfo { codec: Codec::Pcmu, clock_rate: 8_000, format: Format::Audio(audio) });
        }
        let ids = stream.announce(&infos);
        Self {
            device,
            stream,
            video: ids[0],
            audio: ids.get(1).copied(),
            infos: infos.into_iter().map(Arc::new).collect(),
            now: MediaTime::START,
            number: 0,
            gop: 25,
            size: 3_000,
            key_size: 3_000,
        }
    }

    /// From now on the pictures are of another kind, as far as anybody is told.
    pub fn change_video(&mut self, info: TrackInfo) {
        self.video = self.stream.announce(std::slice::from_ref(&info))[0];
        self.audio = None;
        self.infos = vec![Arc::new(info)];
    }

    /// Publishes the next picture, and sound for its 40 ms.
    pub fn picture(&mut self) {
        let key = self.number.is_multiple_of(self.gop);
        let mut payload = Vec::new();
        let mut nal = |bytes: &[u8]| {
            payload.extend_from_slice(&[0, 0, 0, 1]);
            payload.extend_from_slice(bytes);
        };
        let mut slice = vec![if key { 0x65 } else { 0x41 }];
        // Seven bits a byte with the eighth set: no start code can arise.
        slice.extend((0..5).rev().map(|shift| 0x80 | (self.number >> (shift * 7) & 0x7f) as u8));
        slice.resize(if key { self.key_size } else { self.size }, 0xaa);
        if key {
            nal(SPS);
            nal(PPS);
        }
        nal(&slice);
        self.unit(self.video, 0, self.now, key, payload.into());
        if let Some(audio) = self.audio {
            for part in 0..2 {
                let at = self.now + FRAME / 2 * part;
                self.unit(audio, 1, at, true, Bytes::from_static(&[0xff; 160]));
            }
        }
        self.number += 1;
        self.now = self.now + FRAME;
    }

    fn unit(&self, track: TrackId, info: usize, at: MediaTime, key: bool, payload: Bytes) {
        let info = Arc::clone(&self.infos[info]);
        self.stream
            .publish(track, AccessUnit { pts: at, dts: at, random_access: key, discontinuity: false, info, payload });
    }

    pub fn pictures(&mut self, count: u32) {
        for _ in 0..count {
            self.picture();
        }
    }

    /// Goes on at the true rate until the handle is dropped or aborted.
    pub fn run(mut self) -> Running {
        let (device, stream) = (Arc::clone(&self.device), Arc::clone(&self.stream));
        let task = tokio::spawn(async move {
            let mut tick = tokio::time::interval(FRAME);
            loop {
                tick.tick().await;
                self.picture();
            }
        });
        Running { device, stream, task }
    }
}

/// A [`Publisher`] at work.
pub struct Running {
    pub device: Arc<Device>,
    pub stream: Arc<Stream>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The picture number in a slice, if the bytes begin with one of [`Publisher::picture`].
pub fn picture_number(slice: &[u8]) -> Option<u32> {
    let digits = slice.get(1..6)?;
    Some(digits.iter().fold(0, |number, digit| number << 7 | u32::from(digit & 0x7f)))
}
