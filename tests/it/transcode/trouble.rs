//! Encoders that die, hang or cannot be had.

use super::clip::{Clip, Playing};
use super::{children, options, signal, take, turn, watch, zombies};
use crate::support::until;
use fanlight::bus::{Reader, Want};
use fanlight::media::Codec;
use fanlight::transcode::{Options, Transcoder};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// Reads the camera itself, and notes the longest pause.
fn passthrough(mut reader: Reader) -> tokio::task::JoinHandle<(u32, Duration)> {
    tokio::spawn(async move {
        let (mut pictures, mut longest, mut last) = (0, Duration::ZERO, Instant::now());
        while let Ok(Some(_)) = tokio::time::timeout(Duration::from_secs(2), reader.next()).await {
            // The first are there at once.
            if pictures > 30 {
                longest = longest.max(last.elapsed());
            }
            last = Instant::now();
            pictures += 1;
        }
        (pictures, longest)
    })
}

async fn back_within_five_seconds(how: Signal) {
    let playing = Playing::start("yard", Clip::visitors(), 25);
    let beside = passthrough(playing.stream.subscribe(Want::All));
    let transcoder = Transcoder::new(options());
    let rendition = transcoder.rendition(&playing.stream, playing.track, Codec::H264).unwrap();
    let mut reader = watch(rendition.stream()).await;
    let mut last = take(&mut reader, 20).await.pop().unwrap();
    let old = children();
    assert_eq!(old.len(), 1);
    signal(old[0], how);
    let since = Instant::now();
    // What was on its way still comes; the next encoder begins with a key picture and says that something is missing.
    loop {
        let unit = take(&mut reader, 1).await.pop().unwrap();
        assert!(unit.dts > last.dts);
        last = unit;
        if last.discontinuity {
            break;
        }
    }
    assert!(last.random_access);
    assert!(since.elapsed() < Duration::from_secs(5), "it took {:?}", since.elapsed());
    take(&mut reader, 20).await;
    let new = children();
    assert!(new.len() == 1 && new != old, "{old:?} {new:?}");
    assert_eq!(zombies(), 0);
    let state = &transcoder.states()[0];
    assert_eq!((state.restarts, state.trouble.clone()), (1, None));
    playing.stop();
    let (pictures, longest) = beside.await.unwrap();
    assert!(pictures > 40 && longest < Duration::from_secs(1), "{pictures} pictures, a pause of {longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_encoder_is_replaced_and_the_camera_does_not_notice() {
    let _turn = turn().await;
    back_within_five_seconds(Signal::KILL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_encoder_is_replaced_and_the_camera_does_not_notice() {
    let _turn = turn().await;
    back_within_five_seconds(Signal::STOP).await;
}

/// A camera that is away feeds nothing, and that is no fault of the encoder.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_pauses_does_not_end_its_encoder() {
    let _turn = turn().await;
    let playing = Playing::start("pause", Clip::visitors(), 25);
    let transcoder = Transcoder::new(Options { silence: Duration::from_millis(600), ..options() });
    let rendition = transcoder.rendition(&playing.stream, playing.track, Codec::H264).unwrap();
    let mut reader = watch(rendition.stream()).await;
    take(&mut reader, 10).await;
    let old = children();
    playing.stop();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(children(), old);
    assert_eq!(transcoder.states()[0].restarts, 0);
}

/// The pipelines of the program with other words in them.
fn folder(file: &str, change: impl Fn(&str) -> String) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines").join(file);
    let text = change(&std::fs::read_to_string(path).unwrap());
    std::fs::write(folder.path().join(file), text).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_element_disables_the_rendition_until_it_is_there() {
    let _turn = turn().await;
    let playing = Playing::start("lack", Clip::visitors(), 25);
    // As on a machine without that package: an element that nobody has, named as the package's other elements are.
    let folder = folder("h264-to-h264.yaml", |text| {
        text.replace("x264enc", "avenc_nothing").replace("openh264enc", "avenc_nothing")
    });
    let transcoder = Transcoder::new(Options { pipelines: Some(folder.path().to_owned()), ..options() });
    let rendition = transcoder.rendition(&playing.stream, playing.track, Codec::H264).unwrap();
    let waiting = tokio::spawn({
        let stream = rendition.stream().clone();
        async move { stream.ready().await }
    });
    until("it is known that it cannot run", || rendition.trouble().is_some()).await;
    let reason = rendition.trouble().unwrap().reason;
    assert!(reason.contains("avenc_nothing") && reason.contains("gstreamer1.0-libav"), "{reason}");
    let asked = transcoder.rendition(&playing.stream, playing.track, Codec::H264).unwrap_err();
    assert_eq!(asked.reason, reason);
    assert!(transcoder.rendition(&playing.stream, playing.track, Codec::Jpeg).is_ok(), "others are not touched");
    assert!(children().is_empty());

    // The package was installed and the configuration read again.
    std::fs::remove_file(folder.path().join("h264-to-h264.yaml")).unwrap();
    transcoder.reload().unwrap();
    assert!(waiting.await.unwrap());
    assert_eq!(rendition.trouble(), None);
}

/// What exists but does not start, as hardware encoders in a container do, gives way to the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_that_does_not_start_falls_to_the_next() {
    let _turn = turn().await;
    let playing = Playing::start("fall", Clip::visitors(), 25);
    let fails_at_once = "  - about: cannot be opened\n    launch: appsrc name=in ! filesink name=enc location=/nowhere/at/all  appsrc ! appsink name=out\n";
    let fails_later = "  - about: fails at the first picture\n    launch: appsrc name=in ! avdec_h264 ! identity name=enc error-after=1 ! appsink name=out\n";
    let dies = "  - about: says nothing\n    launch: appsrc name=in ! fakesink name=enc  appsrc ! appsink name=out\n";
    let folder = folder("h264-to-h264.yaml", |text| {
        text.replace("candidates:\n", &format!("candidates:\n{fails_at_once}{fails_later}{dies}"))
            .replace("appsrc ! appsink name=out", "videotestsrc num-buffers=0 ! appsink name=out")
    });
    let options =
        Options { pipelines: Some(folder.path().to_owned()), silence: Duration::from_millis(900), ..options() };
    let transcoder = Transcoder::new(options);
    let rendition = transcoder.rendition(&playing.stream, playing.track, Codec::H264).unwrap();
    let mut reader = watch(rendition.stream()).await;
    take(&mut reader, 5).await;
    assert_eq!(transcoder.states()[0].restarts, 2, "the first was passed over in the same child");
}

/// An encoder that dies at once again and again is started less and less often.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_backs_off() {
    let _turn = turn().await;
    let playing = Playing::start("loop", Clip::visitors(), 25);
    let folder = folder("h264-to-h264.yaml", |text| {
        let (head, _) = text.split_once("candidates:").unwrap();
        format!(
            "{head}candidates:\n  - about: fails\n    launch: appsrc name=in ! avdec_h264 ! identity name=enc error-after=1 ! appsink name=out\n"
        )
    });
    let back_off = (Duration::from_millis(200), Duration::from_secs(30));
    let options = Options { pipelines: Some(folder.path().to_owned()), back_off, ..options() };
    let transcoder = Transcoder::new(options);
    let rendition = transcoder.rendition(&playing.stream, playing.track, Codec::H264).unwrap();
    let _waiting = rendition.stream().demand.register();
    tokio::time::sleep(Duration::from_secs(6)).await;
    // 0.2, 0.4, 0.8, 1.6, 3.2 s apart, and never more than one child.
    let restarts = transcoder.states()[0].restarts;
    assert!((2..=5).contains(&restarts), "{restarts} restarts in 6 s");
    assert!(children().len() <= 1);
    assert!(rendition.trouble().is_some_and(|trouble| trouble.reason.contains("enc")), "{:?}", rendition.trouble());
}

/// A pipeline that has changed takes effect at once, and one with a mistake changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn pipelines_that_are_read_again_replace_running_encoders() {
    let _turn = turn().await;
    let playing = Playing::start("reread", Clip::visitors(), 25);
    let own = tempfile::tempdir().unwrap();
    let transcoder = Transcoder::new(Options { pipelines: Some(own.path().to_owned()), ..options() });
    let rendition = transcoder.rendition(&playing.stream, playing.track, Codec::H264).unwrap();
    let mut reader = watch(rendition.stream()).await;
    take(&mut reader, 5).await;
    let old = children();
    let file = own.path().join("h264-to-h264.yaml");
    std::fs::write(&file, "from: h264\n").unwrap();
    let mistakes = transcoder.reload().unwrap_err();
    assert!(mistakes[0].to_string().contains("h264-to-h264.yaml:1:1: `about` is missing"), "{}", mistakes[0]);
    let other = folder("h264-to-h264.yaml", |text| text.replace("ultrafast", "superfast"));
    take(&mut reader, 5).await;
    assert_eq!(children(), old);

    std::fs::copy(other.path().join("h264-to-h264.yaml"), &file).unwrap();
    transcoder.reload().unwrap();
    while !take(&mut reader, 1).await[0].discontinuity {}
    take(&mut reader, 5).await;
    let new = children();
    assert!(new.len() == 1 && new != old);
    assert_eq!(transcoder.states()[0].restarts, 0);
}
