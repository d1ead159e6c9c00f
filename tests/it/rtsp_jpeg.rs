//! JPEG cameras over RTSP: H.264 for everybody, and their own pictures for who asks for them. The cameras put given
//! pictures onto the bus; encoders are real ones, so these tests take turns.

mod exact;
mod forms;
mod pictures;
mod players;
mod stills;

use crate::support::rtsp_client::Client;
use bytes::Bytes;
use fanlight::access::{Access, Auth};
use fanlight::bus::{Bus, Device, DeviceOptions, Limits, Stream, SubStream, TrackId, Upstream};
use fanlight::media::{AccessUnit, AudioFormat, Codec, Format, MediaTime, TrackInfo, VideoFormat, jpeg};
use fanlight::republish::rtsp::{Options, Server};
use fanlight::transcode::{self, Transcoder};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

/// Held by each test while it encodes.
async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

struct Gateway {
    bus: Arc<Bus>,
    transcoder: Arc<Transcoder>,
    address: SocketAddr,
    cancel: CancellationToken,
}

impl Gateway {
    fn start() -> Self {
        Self::with(None)
    }

    fn with(pipelines: Option<PathBuf>) -> Self {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_fanlight"));
        let transcoder = Transcoder::new(transcode::Options { program, pipelines, ..transcode::Options::default() });
        let transcoder = Arc::new(transcoder);
        // An encoder may take long to start on a busy machine.
        let ready_wait = crate::support::PATIENCE;
        let options = Options { transcoder: Arc::clone(&transcoder), ready_wait, ..Options::default() };
        let server = Server::bind(&["127.0.0.1:0".parse().unwrap()], Some((0, 0)), options).unwrap();
        let address = server.local_addrs()[0];
        let (bus, cancel) = (Bus::new(), CancellationToken::new());
        tokio::spawn(server.serve(Arc::clone(&bus), Arc::new(Access::new(Auth::None, Vec::new())), cancel.clone()));
        Self { bus, transcoder, address, cancel }
    }

    fn url(&self, path: &str) -> String {
        format!("rtsp://{}/{path}", self.address)
    }

    async fn client(&self, path: &str) -> Client {
        Client::connect(self.address, path).await
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// A camera that publishes the pictures it is given, and sound if wanted.
struct Camera {
    stream: Arc<Stream>,
    video: TrackId,
    audio: Option<(TrackId, Arc<TrackInfo>)>,
    /// Time of the next picture.
    now: MediaTime,
}

impl Camera {
    fn new(bus: &Bus, name: &str, with_audio: bool) -> Self {
        let stream = Stream::new(name, Limits::default());
        let device = Device::new(DeviceOptions {
            name: name.into(),
            family: "iwfcam",
            main: Arc::clone(&stream),
            sub: SubStream::None,
            upstream: Upstream::new(1),
            viewers: Arc::default(),
        });
        bus.add(device);
        let mut infos = vec![info(0, 0)];
        if with_audio {
            let audio = AudioFormat { channels: 1, sample_rate: 8_000, config: Bytes::new() };
            infos.push(TrackInfo { codec: Codec::Pcmu, clock_rate: 8_000, format: Format::Audio(audio) });
        }
        let ids = stream.announce(&infos);
        let audio = ids.get(1).map(|id| (*id, Arc::new(infos[1].clone())));
        Self { stream, video: ids[0], audio, now: MediaTime::START }
    }

    /// Publishes a picture, and sound from it up to the next.
    fn show(&mut self, picture: &Bytes, until_next: Duration) {
        let parsed = jpeg::parse(picture).unwrap();
        let info = Arc::new(info(parsed.width.into(), parsed.height.into()));
        self.publish(self.video, &info, self.now, picture.clone());
        if let Some((audio, info)) = &self.audio {
            let mut at = self.now;
            while at < self.now + until_next {
                self.publish(*audio, info, at, Bytes::from_static(&[0xff; 160]));
                at = at + Duration::from_millis(20);
            }
        }
        self.now = self.now + until_next;
    }

    fn publish(&self, track: TrackId, info: &Arc<TrackInfo>, at: MediaTime, payload: Bytes) {
        let info = Arc::clone(info);
        let unit = AccessUnit { pts: at, dts: at, random_access: true, discontinuity: false, info, payload };
        self.stream.publish(track, unit);
    }

    /// Shows them one after the other and again from the first, at the true rate, until the handle is dropped.
    fn run(mut self, pictures: Vec<Bytes>, step: Duration) -> Running {
        let (stream, video) = (Arc::clone(&self.stream), self.video);
        let task = tokio::spawn(async move {
            let mut tick = tokio::time::interval(step);
            for picture in pictures.iter().cycle() {
                tick.tick().await;
                self.show(picture, step);
            }
        });
        Running { stream, video, task }
    }
}

/// A [`Camera`] at work.
struct Running {
    stream: Arc<Stream>,
    video: TrackId,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn info(width: u32, height: u32) -> TrackInfo {
    let video = VideoFormat { width, height, pixel_aspect: (1, 1), reorder_depth: Some(0), ..VideoFormat::default() };
    TrackInfo { codec: Codec::Jpeg, clock_rate: 90_000, format: Format::Video(video) }
}

/// Each picture lasts so long at 15 pictures a second.
const FRAME: Duration = Duration::from_nanos(1_000_000_000 / 15);
