//! WHEP as far as offer and answer: POST an offer, read 201 with the answer; DELETE the session.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rtsp::{self, Message}; // HTTP's messages have the form of RTSP's

/// The answer of a WHEP endpoint.
#[derive(Debug)]
pub struct Answer {
    /// Session description.
    pub sdp: String,
    /// Path of the session.
    pub location: String,
}

/// Reads one message.
///
/// # Errors
/// The connection ends before it does, or it is too long.
pub async fn read(stream: &mut TcpStream) -> Result<Message> {
    let mut bytes = Vec::new();
    loop {
        if let Some((message, _)) = rtsp::parse(&bytes)? {
            return Ok(message);
        }
        ensure!(stream.read_buf(&mut bytes).await? > 0, "closed after {} bytes", bytes.len());
    }
}

async fn exchange(server: SocketAddr, head: String, body: &str) -> Result<Message> {
    let talk = async {
        let mut stream = TcpStream::connect(server).await?;
        let length = body.len();
        let text = format!("{head}Host: {server}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(text.as_bytes()).await?;
        read(&mut stream).await
    };
    tokio::time::timeout(Duration::from_secs(10), talk).await.context("no answer within 10 s")?
}

/// Offers.
///
/// # Errors
/// Any answer but 201 with a description.
pub async fn post(server: SocketAddr, path: &str, offer: &str) -> Result<Answer> {
    let answer = exchange(server, format!("POST {path} HTTP/1.1\r\nContent-Type: application/sdp\r\n"), offer).await?;
    ensure!(answer.status() == 201, "{}: {}", answer.start, String::from_utf8_lossy(&answer.body));
    let location = answer.header("location").context("no Location")?;
    // the server may give a whole URL
    let location =
        location.split_once("://").map_or(location, |(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
    Ok(Answer { location: location.to_owned(), sdp: String::from_utf8(answer.body)? })
}

/// Ends a session.
///
/// # Errors
/// No answer; any answer will do.
pub async fn delete(server: SocketAddr, location: &str) -> Result<()> {
    exchange(server, format!("DELETE {location} HTTP/1.1\r\n"), "").await.map(drop)
}
