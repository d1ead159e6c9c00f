//! The reader and the writer of trickled fragments.

use fanlight::media::Kind;
use fanlight::republish::webrtc::Fragment;

/// Reads the input as a fragment: what is written of it reads the same.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Fragment::parse(text) {
        Ok(fragment) => {
            assert!(fragment.candidates.len() <= 64);
            assert_eq!(Fragment::parse(&fragment.write(Kind::Video, "0")).as_ref(), Ok(&fragment));
        }
        Err(error) => assert!(error.to_string().len() < 500, "{error}"),
    }
}
