//! A player that says exactly what it is told to and shows exactly what came back.

use super::PATIENCE;
use super::publisher::picture_number;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub struct Client {
    pub socket: TcpStream,
    buffer: BytesMut,
    frames: VecDeque<(u8, Bytes)>,
    cseq: u32,
    pub session: Option<String>,
    pub base: String,
    /// Sent with each request.
    pub authorization: Option<String>,
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }
}

/// An RTP packet, taken apart.
#[derive(Debug, Clone)]
pub struct Rtp {
    pub marker: bool,
    pub seq: u16,
    pub time: u32,
    pub payload: Bytes,
}

impl Rtp {
    pub fn parse(packet: &Bytes) -> Self {
        assert!(packet.len() >= 12 && packet[0] == 0x80, "not RTP: {packet:02x?}");
        Self {
            marker: packet[1] & 0x80 != 0,
            seq: u16::from_be_bytes([packet[2], packet[3]]),
            time: u32::from_be_bytes(packet[4..8].try_into().unwrap()),
            payload: packet.slice(12..),
        }
    }

    /// The number of the picture that begins in this packet.
    pub fn picture(&self) -> Option<u32> {
        match self.payload[0] & 0x1f {
            1 | 5 => picture_number(&self.payload),
            28 if self.payload[1] & 0x80 != 0 => picture_number(&self.payload[1..]),
            _ => None,
        }
    }
}

impl Client {
    pub async fn connect(server: SocketAddr, path: &str) -> Self {
        let socket = TcpStream::connect(server).await.unwrap();
        Self::on(socket, server, path)
    }

    pub fn on(socket: TcpStream, server: SocketAddr, path: &str) -> Self {
        let base = format!("rtsp://{server}/{path}");
        Self {
            socket,
            buffer: BytesMut::new(),
            frames: VecDeque::new(),
            cseq: 0,
            session: None,
            base,
            authorization: None,
        }
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    /// Sends a request with CSeq and Session and answers the reply; the CSeq must match.
    pub async fn request(&mut self, method: &str, uri: &str, headers: &[(&str, &str)]) -> Reply {
        self.cseq += 1;
        let mut text = format!("{method} {uri} RTSP/1.0\r\nCSeq: {}\r\n", self.cseq);
        if let Some(session) = &self.session {
            text += &format!("Session: {session}\r\n");
        }
        if let Some(authorization) = &self.authorization {
            text += &format!("Authorization: {authorization}\r\n");
        }
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        self.write(text.as_bytes()).await;
        let reply = self.reply().await;
        assert_eq!(reply.header("CSeq"), Some(self.cseq.to_string().as_str()), "{reply:?}");
        if let Some(session) = reply.header("Session") {
            self.session = session.split(';').next().map(str::to_owned);
        }
        reply
    }

    /// The first line of the next reply, which must have no body.
    pub async fn status_line(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = self.buffer.split_to(end + 4);
                return String::from_utf8_lossy(&head).lines().next().unwrap().to_owned();
            }
            self.fill().await;
        }
    }

    /// The next reply; frames on the way are kept for [`Self::frame`].
    pub async fn reply(&mut self) -> Reply {
        loop {
            self.take_frames();
            if !self.buffer.is_empty()
                && self.buffer[0] != b'$'
                && let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n")
            {
                let head = String::from_utf8(self.buffer[..end].to_vec()).unwrap();
                let mut lines = head.lines();
                let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
                let headers: Vec<(String, String)> = lines
                    .map(|line| line.split_once(": ").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap())
                    .collect();
                let length = headers.iter().find(|(name, _)| name == "Content-Length");
                let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
                while self.buffer.len() < end + 4 + length {
                    self.fill().await;
                }
                self.buffer.advance(end + 4);
                let body = String::from_utf8(self.buffer.split_to(length).to_vec()).unwrap();
                return Reply { status, headers, body };
            }
            self.fill().await;
        }
    }

    fn take_frames(&mut self) {
        while self.buffer.first() == Some(&b'$') && self.buffer.len() >= 4 {
            let size = usize::from(u16::from_be_bytes([self.buffer[2], self.buffer[3]]));
            if self.buffer.len() < 4 + size {
                return;
            }
            let channel = self.buffer[1];
            self.buffer.advance(4);
            self.frames.push_back((channel, self.buffer.split_to(size).freeze()));
        }
    }

    async fn fill(&mut self) {
        assert!(self.fill_or_end().await, "the server closed the connection");
    }

    async fn fill_or_end(&mut self) -> bool {
        let read = timeout(PATIENCE, self.socket.read_buf(&mut self.buffer)).await.expect("the server is silent");
        matches!(read, Ok(count) if count > 0)
    }

    /// The next interleaved frame; panics if anything else comes.
    pub async fn frame(&mut self) -> (u8, Bytes) {
        self.frame_or_end().await.expect("the server closed the connection")
    }

    /// A frame that was read already.
    pub fn take_waiting(&mut self) -> Option<(u8, Bytes)> {
        self.take_frames();
        self.frames.pop_front()
    }

    /// The next interleaved frame, or `None` at the end of the connection.
    pub async fn frame_or_end(&mut self) -> Option<(u8, Bytes)> {
        loop {
            self.take_frames();
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            assert!(self.buffer.first().is_none_or(|byte| *byte == b'$'), "broken framing: {:02x?}", &self.buffer[..]);
            if !self.fill_or_end().await {
                return None;
            }
        }
    }

    /// The next RTP packet on that channel; others are passed over.
    pub async fn rtp(&mut self, channel: u8) -> Rtp {
        loop {
            let (on, packet) = self.frame().await;
            if on == channel {
                return Rtp::parse(&packet);
            }
        }
    }

    /// The number of the next picture that begins on that channel.
    pub async fn picture(&mut self, channel: u8) -> u32 {
        loop {
            if let Some(number) = self.rtp(channel).await.picture() {
                return number;
            }
        }
    }

    /// DESCRIBE, SETUP of the first track over TCP, PLAY.
    pub async fn play(&mut self) -> Reply {
        let uri = self.base.clone();
        assert_eq!(self.request("DESCRIBE", &uri, &[]).await.status, 200);
        let track = format!("{uri}/trackID=0");
        let setup = self.request("SETUP", &track, &[("Transport", "RTP/AVP/TCP;unicast;interleaved=0-1")]).await;
        assert_eq!(setup.status, 200, "{setup:?}");
        let play = self.request("PLAY", &uri, &[]).await;
        assert_eq!(play.status, 200, "{play:?}");
        play
    }
}
