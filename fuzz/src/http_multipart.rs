//! The reader of multipart MJPEG. The first byte says how the rest is cut into pieces, the second chooses what the camera
//! announces.

use fanlight::ingest::http::multipart::Multipart;

/// The largest part.
const LIMIT: usize = 4096;

/// Reads the input as an answer that comes in pieces.
pub fn check(data: &[u8]) {
    let Some((&[cut, kind], data)) = data.split_first_chunk() else { return };
    let content_type = match kind % 3 {
        0 => "multipart/x-mixed-replace; boundary=x",
        1 => "multipart/x-mixed-replace; boundary=\"--frame\"",
        _ => "multipart/x-mixed-replace",
    };
    let mut parts = Multipart::new(content_type, LIMIT);
    let (mut read, mut given) = (0, 0);
    for piece in data.chunks(usize::from(cut).max(1)) {
        parts.push(piece);
        read += piece.len();
        loop {
            match parts.next_picture() {
                Ok(None) => break,
                Ok(Some(picture)) => {
                    given += picture.len();
                    // A part that came in one piece with more may be a piece longer.
                    assert!(picture.len() <= LIMIT + usize::from(cut).max(1));
                    assert!(given <= read);
                }
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    return;
                }
            }
        }
    }
    if let Some(picture) = parts.finish() {
        assert!(picture.starts_with(&[0xff, 0xd8]) && given + picture.len() <= read);
    }
    assert!(parts.is_done() && parts.finish().is_none());
}
