//! What is pushed: multipart, alarms, pictures.

use bytes::Bytes;
use fanlight::ingest::push::alarm::Says;
use fanlight::ingest::push::body::{is_jpeg, parse};
use futures::executor::block_on;

const TYPES: [&str; 5] =
    ["", "image/jpeg", "application/xml; charset=\"UTF-8\"", "multipart/form-data; boundary=XX", "multipart/mixed"];

/// Reads the input as the body of a push; its first byte chooses the content type.
pub fn check(data: &[u8]) {
    let Some((&first, body)) = data.split_first() else { return };
    let content_type = TYPES[usize::from(first) % TYPES.len()];
    match block_on(parse(content_type, Bytes::copy_from_slice(body))) {
        Ok(pushed) => {
            assert!(pushed.picture.is_some() || pushed.alarm.is_some());
            assert!(pushed.picture.is_none_or(|picture| is_jpeg(&picture) && picture.len() <= body.len()));
            let Some(alarm) = pushed.alarm else { return };
            assert!(
                alarm.detail().values().all(|value| value.as_str().is_some_and(|text| text.chars().count() <= 128))
            );
            if let Says::Cause(name, _) = alarm.says() {
                assert!((1..=32).contains(&name.len()) && !name.contains('/') && name.is_ascii(), "{name}");
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
