//! The camera's sound: ADPCM comes in, G.711 goes out, to players and browsers alike.

use super::*;
use crate::players::tool::ffprobe;
use crate::support::whep_viewer::{Viewer, Wishes};
use fanlight::media::{Kind, g711};

/// Whether that is a tone of 440 Hz: so many zero crossings a second at 8 kHz.
fn is_the_tone(octets: &[u8]) -> bool {
    let samples: Vec<i16> = octets.iter().map(|octet| g711::linear(*octet)).collect();
    let crossings = samples.windows(2).filter(|pair| (pair[0] < 0) != (pair[1] < 0)).count();
    let wanted = octets.len() as f64 * 880.0 / 8000.0;
    (crossings as f64 - wanted).abs() < wanted / 10.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sound_plays_over_rtsp() {
    let camera = camera(options(21));
    let gateway = gateway(&entry("spy", &camera, "")).await;
    Pictures::of(&gateway.app, "spy").await;
    let url = format!("rtsp://{}/spy?video=copy", gateway.rtsp());
    let told = ffprobe("-rtsp_transport tcp -show_entries stream=codec_name,sample_rate,channels,width", &url).await;
    let streams = told["streams"].as_array().unwrap();
    let codecs: Vec<_> = streams.iter().map(|stream| stream["codec_name"].as_str().unwrap()).collect();
    assert_eq!(codecs, ["mjpeg", "pcm_mulaw"], "{told}");
    assert_eq!(streams[0]["width"], 320, "{told}");
    assert_eq!((&streams[1]["sample_rate"], &streams[1]["channels"]), (&"8000".into(), &1.into()), "{told}");
    gateway.app.stop().await;
    harmless(&camera);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browsers_hear_the_cameras_own_g711_beside_h264() {
    let _turn = crate::transcode::turn().await;
    let camera = camera(options(22));
    let gateway =
        Gateway::start(&entry("spy", &camera, ""), Options { program: program(), ..Options::default() }).await;
    Pictures::of(&gateway.app, "spy").await;
    let mut viewer = Viewer::of(gateway.http(), "/whep/spy", Wishes { audio: true, ..Wishes::default() }).await;
    viewer.video().await;
    let mut heard = Vec::new();
    while heard.len() < 8000 {
        let (kind, packet) = viewer.packet().await;
        if kind == Kind::Audio {
            assert_eq!(packet.header.payload_type, 0, "PCMU (RFC 3551 section 6)");
            heard.extend_from_slice(&packet.payload);
        }
    }
    assert!(is_the_tone(&heard), "440 Hz");
    viewer.close().await;
    gateway.app.stop().await;
    harmless(&camera);
}
