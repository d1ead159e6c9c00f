//! Recorders that copy what they get: ffmpeg's segments and Frigate's, while the camera's time stamps jump about.

use super::footage::{B_PICTURES, Film, PLAIN, Reel, STRIP, numbers};
use super::house::{House, load};
use super::order::is_run;
use super::tool::{run, succeed, succeed_within, words};
use fanlight::simulate::rtsp::{Camera, Faults, Footage, Jump, Options};
use futures::future::join_all;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How a recorder is told to read.
const FFMPEG: &str = "-rtsp_transport tcp -i URL";
/// Frigate 0.16, `preset-rtsp-restream`, behind its global arguments.
const FRIGATE: &str = "-threads 2 -user_agent FFmpeg_Frigate/0.16 -rtsp_transport tcp -timeout 10000000 -i URL";
/// Frigate's `preset-rtsp-generic`, which stamps packets with the time at which they arrive: two that are read within
/// 78 µs get the same, be it from the cache or because the machine was busy. How many do is not ours to judge.
const FRIGATE_GENERIC: &str = "-threads 2 -user_agent FFmpeg_Frigate/0.16 -avoid_negative_ts make_zero \
    -fflags +genpts+discardcorrupt -rtsp_transport tcp -timeout 10000000 -use_wallclock_as_timestamps 1 -i URL";

/// What it does with what it reads; segments are named by the test.
const COPY: &str = "-c copy -f segment -segment_time 10";
/// Frigate's `preset-record-generic`, `-audio-copy` and `-audio-aac`.
const RECORD: &str = "-f segment -segment_time 10 -segment_format mp4 -reset_timestamps 1 -c copy -an";
const RECORD_SOUND: &str = "-f segment -segment_time 10 -segment_format mp4 -reset_timestamps 1 -c copy";
const RECORD_AAC: &str = "-f segment -segment_time 10 -segment_format mp4 -reset_timestamps 1 -c:v copy -c:a aac";

/// A way to record.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// Name of the camera.
    camera: &'static str,
    query: &'static str,
    input: &'static str,
    output: &'static str,
    ending: &'static str,
}

impl Way {
    fn stamps_arrival(&self) -> bool {
        self.input == FRIGATE_GENERIC
    }
}

const fn way(
    camera: &'static str,
    query: &'static str,
    input: &'static str,
    output: &'static str,
    ending: &'static str,
) -> Way {
    Way { camera, query, input, output, ending }
}

/// The most telling ones: each container, each clip, with and without sound, Frigate's own.
const SHORT: [Way; 5] = [
    way("plain", "", FFMPEG, COPY, "mp4"),
    way("plain", "?audio=none", FFMPEG, COPY, "mkv"),
    way("reordered", "", FFMPEG, COPY, "mkv"),
    way("reordered", "", FRIGATE, RECORD_SOUND, "mp4"),
    way("plain", "", FRIGATE, RECORD_AAC, "mp4"),
];

/// All of them.
fn all() -> Vec<Way> {
    let mut ways = Vec::new();
    for camera in ["plain", "reordered"] {
        for query in ["", "?audio=none"] {
            for ending in ["mp4", "mkv"] {
                ways.push(way(camera, query, FFMPEG, COPY, ending));
            }
            ways.push(way(camera, query, FRIGATE, RECORD_SOUND, "mp4"));
        }
        ways.push(way(camera, "", FRIGATE, RECORD, "mp4"));
        ways.push(way(camera, "", FRIGATE, RECORD_AAC, "mp4"));
    }
    ways.push(way("plain", "?start=live", FRIGATE_GENERIC, RECORD, "mp4"));
    ways.push(way("plain", "", FRIGATE_GENERIC, RECORD, "mp4"));
    ways
}

/// What a recorder left.
struct Recording {
    way: Way,
    log: String,
    segments: Vec<PathBuf>,
}

impl Recording {
    async fn take(way: Way, url: String, seconds: u32, dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let line = format!("{} {} {}", way.input, way.output, "-hide_banner -nostdin -nostats -v warning");
        let mut arguments: Vec<_> =
            words(&line).into_iter().map(|w| if w == "URL" { url.clone() } else { w }).collect();
        arguments.extend(["-t".into(), seconds.to_string(), format!("{}/%03d.{}", dir.display(), way.ending)]);
        let limit = Duration::from_secs(u64::from(seconds) + 60);
        let output = succeed_within(limit, "ffmpeg", &arguments).await;
        let mut segments: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        segments.sort();
        Self { way, log: output.log, segments }
    }

    /// Warnings about time stamps.
    fn warnings(&self) -> usize {
        let about_time = |line: &&str| ["DTS", "pts", "Timestamps"].iter().any(|word| line.contains(word));
        self.log.lines().filter(about_time).count()
    }

    /// Every segment starts on a key picture, lasts as long as it should, and all of them together hold every picture
    /// of the camera in order.
    async fn check(&self, seconds: u32, pictures: u32) {
        let way = self.way;
        let mut seen = Vec::new();
        let mut total = 0.0;
        for segment in &self.segments {
            let file = segment.display().to_string();
            let mut first =
                words("-v error -select_streams v:0 -show_entries packet=flags -read_intervals %+#1 -of csv=p=0");
            first.push(file.clone());
            let flags = succeed("ffprobe", &first).await.text();
            assert!(flags.starts_with('K'), "{way:?}: {file} starts with {flags:?}");
            let mut length = words("-v error -show_entries format=duration -of csv=p=0");
            length.push(file.clone());
            let duration: f64 = succeed("ffprobe", &length).await.text().trim().parse().unwrap();
            total += duration;
            let mut decode = words("-v error -i");
            decode.push(file.clone());
            decode.extend(words(&format!(
                "-vf {STRIP} -fps_mode passthrough -enc_time_base -1 -pix_fmt gray -f rawvideo -"
            )));
            let decoded = run("ffmpeg", &decode).await;
            // The decoder knows better in which order pictures around a jump are shown than their time stamps.
            let scrambled = |line: &&str| way.camera != "plain" && line.contains("monotonically increasing dts");
            let complaints: Vec<_> = decoded.log.lines().filter(|line| !scrambled(line)).collect();
            assert!(complaints.is_empty(), "{way:?}: {file}: {complaints:?}");
            seen.extend(numbers(&decoded.stdout));
        }
        assert!(self.segments.len() >= seconds as usize / 12, "{way:?}: {:?}", self.segments);
        // A recording that ends in the middle of B pictures lacks some of them.
        let whole = if way.camera == "plain" { seen.len() } else { seen.len() - 4 };
        assert!(is_run(&seen[..whole], pictures), "{way:?}: {seen:?}");
        // By the time of their arrival, the cached pictures take no time at all: up to a GOP more fits in.
        let most = if way.stamps_arrival() { 110 } else { 10 };
        // A jump may cost B pictures' order twice in time: what is shown late from before it and early from after it.
        let jumps = seconds as usize * 1_000 / REORDERED_JUMPS_MS as usize + 1;
        let least = if way.camera == "plain" { 10 } else { 10 + 6 * jumps };
        let expected = seconds as usize * 25;
        assert!((expected - least..=expected + most).contains(&seen.len()), "{way:?}: {} pictures", seen.len());
        if way.output.contains("reset_timestamps") {
            assert!((total - f64::from(seconds)).abs() < 1.0, "{way:?}: {total} s of {seconds}");
        }
        // A row of the table in benches/results.
        let Way { camera, query, input, output, ending } = way;
        let (segments, pictures, warnings) = (self.segments.len(), seen.len(), self.warnings());
        println!("| {camera}{query} | `{input} {output}` | {ending} | {segments} | {pictures} | {warnings} |");
    }
}

struct Studio {
    house: House,
    plain: Reel,
    reordered: Reel,
    /// A camera that plays the clip with B pictures without any fault: what gstreamer-rtsp-server makes of it.
    rival: Camera,
}

const PICTURES: u32 = 400;
/// How often the clock of the camera with B pictures jumps.
const REORDERED_JUMPS_MS: u64 = 5_700;

impl Studio {
    async fn open() -> Self {
        let film = |video| Film { video, audio: Some("-c:a aac -b:a 64k"), pictures: PICTURES, ..Film::default() };
        let (plain, reordered) = (film(PLAIN).shoot().await, film(B_PICTURES).shoot().await);
        // Backward and forward; at moments that are nobody's key pictures.
        let faults = |by_ms, every| Faults {
            jump: Some(Jump { by_ms, every: Duration::from_millis(every) }),
            ..Faults::default()
        };
        let clip = load(Footage::File(reordered.path())).await;
        let jumping = |clip, faults| Options { faults, ..Options::new(clip) };
        let plain_clip = load(Footage::File(plain.path())).await;
        let house = House::of(vec![
            ("plain", jumping(plain_clip, faults(-3_600_000, 4_300))),
            ("reordered", jumping(Arc::clone(&clip), faults(777_000, REORDERED_JUMPS_MS))),
        ])
        .await;
        let rival = tokio::task::spawn_blocking(|| Camera::start(Options::new(clip)).unwrap()).await.unwrap();
        Self { house, plain, reordered, rival }
    }

    async fn record(&self, ways: &[Way], seconds: u32) {
        let each = ways.iter().enumerate().map(|(index, way)| {
            let reel = if way.camera == "plain" { &self.plain } else { &self.reordered };
            let url = format!("{}{}", self.house.url(way.camera), way.query);
            let dir = reel.dir().join(index.to_string());
            async move { Recording::take(*way, url, seconds, &dir).await }
        });
        let rivals = ["mp4", "mkv"].into_iter().map(|ending| {
            let dir = self.reordered.dir().join(format!("rival-{ending}"));
            let url = self.rival.url();
            async move { Recording::take(way("rival", "", FFMPEG, COPY, ending), url, 12, &dir).await }
        });
        let (recordings, rivals) = futures::future::join(join_all(each), join_all(rivals)).await;
        let allowed = rivals.iter().map(Recording::warnings).max().unwrap();
        for recording in recordings {
            recording.check(seconds, PICTURES).await;
            // Any RTSP source costs ffmpeg's first packet up to two lines.
            let most = match recording.way {
                way if way.stamps_arrival() => usize::MAX,
                way if way.camera == "plain" => 2,
                _ => allowed,
            };
            let log = &recording.log;
            assert!(recording.warnings() <= most, "{:?}: more than {most} of\n{log}", recording.way);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_of_a_camera_whose_clock_jumps() {
    Studio::open().await.record(&SHORT, 25).await;
}

/// Five minutes of every way at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes five minutes: part of make soak"]
async fn soak_segments_of_a_camera_whose_clock_jumps() {
    Studio::open().await.record(&all(), 300).await;
}
