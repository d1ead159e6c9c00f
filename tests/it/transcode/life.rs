//! When encoders run, and what is left of them.

use super::clip::{Clip, Playing};
use super::{children, options, take, transcoder, turn, watch, zombies};
use crate::support::until;
use fanlight::bus::LINGER;
use fanlight::media::Codec;
use fanlight::transcode::{Options, Transcoder};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn twenty_viewers_share_one_encoder_which_ends_after_the_last() {
    let _turn = turn().await;
    let playing = Playing::start("wall", Clip::visitors(), 25);
    let transcoder = Transcoder::new(Options { linger: LINGER, ..options() });
    let mut viewers = Vec::new();
    for _ in 0..20 {
        let rendition = transcoder.rendition(&playing.stream, playing.track, Codec::H264).unwrap();
        viewers.push(watch(rendition.stream()).await);
    }
    for viewer in &mut viewers {
        take(viewer, 3).await;
    }
    assert_eq!(children().len(), 1);
    viewers.truncate(1);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(children().len(), 1);
    let left = Instant::now();
    drop(viewers);
    // The linger time of 10 s is the real one here.
    while !children().is_empty() {
        assert!(left.elapsed() < Duration::from_secs(12), "the encoder still runs");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(left.elapsed() > Duration::from_secs(9), "it went after {:?}", left.elapsed());
    until("it is known", || !transcoder.states()[0].running).await;
}

/// What a process has.
fn holdings() -> (usize, usize) {
    let me = procfs::process::Process::myself().unwrap();
    (me.fd_count().unwrap(), me.tasks().unwrap().count())
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_starts_and_stops_leave_nothing_behind() {
    let _turn = turn().await;
    let playing = Playing::start("gate", Clip::visitors(), 25);
    let transcoder = Transcoder::new(Options { linger: Duration::ZERO, ..options() });
    let rendition = transcoder.rendition(&playing.stream, playing.track, Codec::H264).unwrap();
    let mut before = None;
    for round in 0..30 {
        let mut reader = watch(rendition.stream()).await;
        take(&mut reader, 1).await;
        drop(reader);
        until("the encoder is gone", || children().is_empty() && zombies() == 0).await;
        if round == 2 {
            before = Some(holdings());
        }
    }
    // Other tests of this program may run beside us, so it is the trend that counts: 27 rounds would leave 27 of each.
    let (before, after) = (before.unwrap(), holdings());
    assert!(after.0 < before.0 + 20 && after.1 < before.1 + 20, "files and threads: {before:?}, then {after:?}");
    let state = &transcoder.states()[0];
    assert_eq!(state.restarts, 0, "{state:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_outlives_the_transcoder() {
    let _turn = turn().await;
    let playing = Playing::start("side", Clip::visitors(), 25);
    for stop in [true, false] {
        let transcoder = transcoder();
        let rendition = transcoder.rendition(&playing.stream, playing.track, Codec::H264).unwrap();
        let mut reader = watch(rendition.stream()).await;
        if stop {
            transcoder.stop().await;
            assert!(transcoder.rendition(&playing.stream, playing.track, Codec::H264).is_err());
        } else {
            drop(transcoder);
        }
        until("the encoder is gone", || children().is_empty() && zombies() == 0).await;
        while reader.next().await.is_some() {}
    }
}
