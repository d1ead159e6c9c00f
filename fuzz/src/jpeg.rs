//! The JPEG reader.

use fanlight::media::jpeg;

/// Reads the input as a picture.
pub fn check(data: &[u8]) {
    match jpeg::parse(data) {
        Ok(picture) => {
            assert!(picture.width > 0 && picture.height > 0 && picture.scans > 0);
            assert!((1..=4).contains(&picture.components.len()));
            assert!(picture.scan.start <= picture.scan.end && picture.scan.end < picture.end);
            assert!(data[..picture.end].ends_with(&[0xff, 0xd9]));
            for table in picture.quantisation.iter().flatten() {
                assert_eq!(table.bytes.len(), if table.wide { 128 } else { 64 });
            }
            if let Some(form) = picture.rtp_form() {
                assert!(matches!(form.kind, 0 | 1 | 64 | 65) && picture.baseline);
            }
            assert_eq!(jpeg::parse(&data[..picture.end]), Ok(picture));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
