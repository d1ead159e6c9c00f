//! What every picture goes through on its way in: the check, the turn, the form that the bus promises. The first byte is
//! the rotation.

use fanlight::ingest::Rotation;
use fanlight::ingest::jpeg::{Treatment, check as check_picture};
use fanlight::media::jpeg;

/// Pictures above this take long and find nothing that small ones do not.
const MOST_PIXELS: usize = 512 * 512;

/// Checks the input as a picture.
pub fn check(data: &[u8]) {
    let Some((turn, data)) = data.split_first() else { return };
    let rotation = Rotation::from_degrees(u16::from(turn % 4) * 90).unwrap_or_default();
    if jpeg::parse(data).is_ok_and(|read| usize::from(read.width) * usize::from(read.height) > MOST_PIXELS) {
        return;
    }
    match check_picture(data.to_vec().into(), rotation) {
        Ok(checked) => {
            let read = jpeg::parse(&checked.bytes).expect("what is published is a picture");
            assert_eq!((read.width, read.height, read.end), (checked.width, checked.height, checked.bytes.len()));
            assert!(read.rtp_form().is_some() && read.has_huffman, "in the form that the bus promises");
            if checked.treatment == Treatment::Untouched {
                assert!(data.starts_with(&checked.bytes));
            }
            // What is right stays as it is.
            let again = check_picture(checked.bytes.clone(), Rotation::None).expect("it was right");
            assert_eq!(again, fanlight::ingest::jpeg::Checked { treatment: Treatment::Untouched, ..checked });
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
