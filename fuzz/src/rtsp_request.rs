//! The reader of RTSP requests, and what is done with their lines.

use fanlight::republish::rtsp::{BadRequest, Incoming, RequestReader, Target, choose};

/// Reads the input as what a client sends, at once and in pieces: both must give the same.
pub fn check(data: &[u8]) {
    let whole = read([data]);
    // The first byte says how large the pieces are.
    let size = usize::from(data.first().copied().unwrap_or(1)) % 61 + 1;
    assert_eq!(whole, read(data.chunks(size)));
    for message in whole.iter().flatten() {
        if let Incoming::Request(request) = message {
            let target = Target::parse(&request.uri);
            assert!(!target.path.starts_with('/') && !target.path.ends_with('/'));
            choose(request.all("Transport"), true);
        }
    }
}

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Result<Incoming, BadRequest>> {
    let (mut reader, mut out) = (RequestReader::default(), Vec::new());
    for piece in pieces {
        reader.buffer().extend_from_slice(piece);
        loop {
            match reader.read() {
                Ok(None) => break,
                Ok(Some(message)) => out.push(Ok(message)),
                Err(error) => {
                    let ended = !error.recoverable;
                    out.push(Err(error));
                    if ended {
                        return out;
                    }
                }
            }
        }
    }
    out
}
