//! The messages between the program and an encoder's process.

use bytes::BytesMut;
use fanlight::transcode::wire::{Frame, MAX_BODY, WireError};

/// Reads the input as messages, at once and byte by byte, and writes what it read.
pub fn check(data: &[u8]) {
    let (whole, end) = read(data, data.len().max(1));
    assert_eq!(read(data, 1), (whole.clone(), end));
    let written: Vec<u8> = whole.iter().flat_map(|frame| [frame.parts().0, frame.parts().1].concat()).collect();
    assert!(data.starts_with(&written), "what is written is what was read");
}

fn read(data: &[u8], step: usize) -> (Vec<Frame>, Option<WireError>) {
    let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
    for part in data.chunks(step) {
        buffer.extend_from_slice(part);
        loop {
            match Frame::take(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    return (frames, Some(error));
                }
            }
        }
    }
    assert!(buffer.len() <= data.len() && buffer.capacity() <= 2 * MAX_BODY);
    (frames, None)
}
