//! What browsers and programs get over HTTP from a whole gateway with simulated cameras behind it.

mod pictures;
mod states;

use crate::support::PATIENCE;
use fanlight::simulate::rtsp::{Audio, Clip, Footage, Video};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// JPEG pictures, 10 a second.
fn jpegs() -> Arc<Clip> {
    static CLIP: OnceLock<Arc<Clip>> = OnceLock::new();
    CLIP.get_or_init(|| Clip::load(&Footage::Visitors, Video::Jpeg, Audio::AsIs).unwrap()).clone()
}

/// An answer that is read as it comes.
struct Answer {
    socket: TcpStream,
    read: Vec<u8>,
    head: String,
    /// Bytes of the body, if the head said how many; otherwise it is chunked.
    length: Option<usize>,
}

/// Asks for a path, from that loopback address, with a receive buffer of that size.
async fn ask_from(from: [u8; 4], buffer: Option<u32>, http: SocketAddr, path: &str, headers: &str) -> Answer {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::from(from), 0).into()).unwrap();
    if let Some(buffer) = buffer {
        socket.set_recv_buffer_size(buffer).unwrap();
    }
    let mut socket = socket.connect(http).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Answer { socket, read: Vec::new(), head: String::new(), length: None };
    let end = answer.find(b"\r\n\r\n").await.expect("an answer") + 4;
    answer.head = String::from_utf8(answer.read.drain(..end).collect()).unwrap();
    answer.length = answer.field("content-length").map(|length| length.parse().unwrap());
    answer
}

async fn ask(http: SocketAddr, path: &str) -> Answer {
    ask_from([127, 0, 0, 1], None, http, path, "").await
}

impl Answer {
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.socket.read_buf(&mut self.read)).await.expect("something to read");
        read.unwrap_or(0) > 0
    }

    /// Where these bytes begin; `None` if the connection ends before.
    async fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        loop {
            if let Some(at) = self.read.windows(bytes.len()).position(|found| found == bytes) {
                return Some(at);
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// The next piece of a chunked body (RFC 9112 section 7.1); `None` at its end.
    async fn chunk(&mut self) -> Option<Vec<u8>> {
        let end = self.find(b"\r\n").await?;
        let size = usize::from_str_radix(std::str::from_utf8(&self.read[..end]).unwrap(), 16).unwrap();
        while self.read.len() < end + 2 + size + 2 {
            if !self.more().await {
                return None;
            }
        }
        let chunk = self.read[end + 2..end + 2 + size].to_vec();
        self.read.drain(..end + 2 + size + 2);
        (size > 0).then_some(chunk)
    }

    /// The whole body of an answer that says how long it is.
    async fn body(&mut self) -> Vec<u8> {
        let length = self.length.expect("a length");
        while self.read.len() < length {
            assert!(self.more().await, "the body is whole");
        }
        self.read.drain(..length).collect()
    }
}
