//! H.265 in every player, joined at any phase of open GOPs: leading pictures that refer to what came before are left
//! out, so that no decoder complains.

use super::footage::{Film, STRIP, numbers};
use super::house::House;
use super::order::is_run;
use super::screen::Screen;
use super::tool::{ffmpeg, ffprobe};
use futures::future::join_all;
use std::time::Duration;

const OPEN_GOP: &str = "-c:v libx265 -preset ultrafast -tag:v hvc1 \
    -x265-params keyint=100:min-keyint=100:scenecut=0:open-gop=1:bframes=3:b-adapt=0:log-level=error";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_gops_play_from_any_phase() {
    let film = Film { video: OPEN_GOP, audio: Some("-c:a aac"), ..Film::default() };
    let length = film.pictures;
    let reel = film.shoot().await;
    let house = House::playing(&reel.path()).await;
    let url = house.url("porch");
    let found = ffprobe("-rtsp_transport tcp -show_streams", &url).await;
    assert_eq!(found["streams"][0]["codec_name"], "hevc");
    assert_eq!(found["streams"][0]["r_frame_rate"], "25/1");
    assert_eq!(found["streams"][1]["codec_name"], "aac");
    let screens: Vec<_> = (0..3).map(|_| Screen::play(&url, "h265", 320)).collect();
    let joins = (0..4_u32).flat_map(|phase| [("tcp", phase), ("udp", phase)]).map(|(transport, phase)| {
        let url = url.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(1_130) * phase).await;
            let line = format!(
                "-v error -rtsp_transport {transport} -i URL -t 8 -map 0:v -vf {STRIP} -fps_mode passthrough \
                 -pix_fmt gray -f rawvideo -"
            );
            let output = ffmpeg(&line, &url).await;
            assert_eq!(output.log, "", "{transport}, phase {phase}");
            let seen = numbers(&output.stdout);
            assert!(seen.len() > 150, "{transport}, phase {phase}: {} pictures in 8 s", seen.len());
            assert!(is_run(&seen, length), "{transport}, phase {phase}: {seen:?}");
        }
    });
    join_all(joins).await;
    for screen in screens {
        let seen = screen.numbers();
        assert!(seen.len() > 150 && is_run(&seen, length), "{seen:?}");
    }
}
