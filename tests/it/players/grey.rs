//! Grey pictures before a stream of any profile: ffmpeg says nothing and shows what it shows without them.

use super::tool::{run, words};
use fanlight::media::{annex_b, h264};
use std::path::Path;

/// The digests of the pictures that ffmpeg shows, and its complaints: some clips are cut off.
async fn shown(file: &Path) -> (Vec<String>, Vec<String>) {
    let mut line = words("-hide_banner -nostdin -nostats -v error -f h264 -i");
    line.push(file.display().to_string());
    line.extend(words("-fps_mode passthrough -f framemd5 -"));
    let output = run("ffmpeg", &line).await;
    let text = output.text();
    let digests = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit(' ').next());
    // Without the address of the decoder in memory.
    let complaints = output.log.lines().map(|line| line.split_once("] ").map_or(line, |(_, text)| text).to_owned());
    (digests.map(str::to_owned).collect(), complaints.collect())
}

#[tokio::test]
async fn nobody_notices_them() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/h264");
    let mut tried = Vec::new();
    for entry in std::fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let clip = std::fs::read(&path).unwrap();
        let sps = annex_b::nal_units(&clip).find(|nal| nal[0] & 0x1f == 7);
        let is_clip = path.extension().is_some_and(|ending| ending == "h264");
        let starts_at_idr = annex_b::nal_units(&clip).find(|nal| matches!(nal[0] & 0x1f, 1 | 5));
        let (Some(sps), true, Some(first)) = (sps, is_clip, starts_at_idr) else { continue };
        let Some(grey) = h264::grey_pictures(sps, 3).filter(|_| first[0] & 0x1f == 5) else { continue };
        let mut bytes = Vec::new();
        for nal in [sps, &grey.pps].into_iter().chain(grey.slices.iter().map(|slice| &slice[..])) {
            annex_b::push(&mut bytes, nal);
        }
        bytes.extend_from_slice(&clip);
        let file = dir.path().join(&name);
        std::fs::write(&file, bytes).unwrap();
        let (without, complaints) = shown(&path).await;
        assert!(!without.is_empty(), "{name}");
        assert_eq!(shown(&file).await, (without, complaints), "{name}");
        tried.push(name);
    }
    // Interlaced, 4:2:2, ten bits, scaling lists: all but 4:4:4.
    assert!(tried.len() >= 8, "{tried:?}");
}
