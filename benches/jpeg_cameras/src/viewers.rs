//! RTSP viewers over TCP that do nothing but read, in a process of their own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::child;
use harness::rtsp;

/// How long a server may take to answer: an encoder may have to start first.
const PATIENCE: Duration = Duration::from_secs(30);

/// What they saw together.
#[derive(Debug, Default)]
struct Seen {
    /// RTP packets with the marker bit: pictures.
    pictures: AtomicU64,
    playing: AtomicU64,
}

/// Plays `each` viewers of every camera `cam0`, `cam1` and so on until standard input ends. Says when all of them play, and
/// then the number of pictures for each line that comes.
///
/// # Errors
/// A viewer that cannot play.
pub fn run(server: SocketAddr, cameras: usize, each: usize) -> Result<()> {
    let seen = Arc::<Seen>::default();
    let (failed, failures) = std::sync::mpsc::channel::<anyhow::Error>();
    for n in 0..cameras * each {
        let (seen, failed) = (Arc::clone(&seen), failed.clone());
        let path = format!("cam{}", n / each);
        let work = move || {
            if let Err(error) = play(server, &path, &seen) {
                // The main thread ends with the first.
                let _ = failed.send(error.context(path));
            }
        };
        // What each needs is small.
        std::thread::Builder::new().stack_size(256 << 10).spawn(work)?;
    }
    let all = (cameras * each) as u64;
    let begin = std::time::Instant::now();
    while seen.playing.load(Ordering::Relaxed) < all {
        if let Ok(error) = failures.try_recv() {
            return Err(error);
        }
        ensure!(begin.elapsed() < 2 * PATIENCE, "{} of {all} viewers play", seen.playing.load(Ordering::Relaxed));
        std::thread::sleep(Duration::from_millis(20));
    }
    child::say(&serde_json::json!({ "playing": all }));
    for line in std::io::stdin().lock().lines() {
        line?;
        if let Ok(error) = failures.try_recv() {
            return Err(error);
        }
        child::say(&serde_json::json!({ "pictures": seen.pictures.load(Ordering::Relaxed) }));
    }
    Ok(())
}

fn play(server: SocketAddr, path: &str, seen: &Seen) -> Result<()> {
    let mut socket = TcpStream::connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let url = format!("rtsp://{server}/{path}");
    let mut reader = BufReader::with_capacity(64 << 10, socket.try_clone()?);
    let mut sequence = 0;
    let mut ask =
        |reader: &mut BufReader<TcpStream>, method: &str, url: &str, headers: &str| -> Result<rtsp::Message> {
            sequence += 1;
            let text =
                format!("{method} {url} RTSP/1.0\r\nCSeq: {sequence}\r\nUser-Agent: jpeg-cameras\r\n{headers}\r\n");
            socket.write_all(text.as_bytes())?;
            let answer = response(reader)?;
            ensure!(answer.status() == 200, "{method}: {}", answer.start);
            Ok(answer)
        };
    let described = ask(&mut reader, "DESCRIBE", &url, "Accept: application/sdp\r\n")?;
    let sdp = String::from_utf8_lossy(&described.body).into_owned();
    ensure!(sdp.contains("H264/90000"), "no H.264 is offered: {sdp}");
    let base = described.header("content-base").unwrap_or(&url).to_owned();
    let control = rtsp::video_control(&sdp, &base);
    let answer = ask(&mut reader, "SETUP", &control, "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n")?;
    let session = answer.header("session").and_then(|text| text.split(';').next()).unwrap_or("").to_owned();
    ask(&mut reader, "PLAY", &base, &format!("Session: {session}\r\nRange: npt=0.000-\r\n"))?;
    let mut first = true;
    let mut body = vec![0; 64 << 10];
    loop {
        let mut head = [0; 4];
        reader.read_exact(&mut head).context("the server ended it")?;
        ensure!(head[0] == b'$', "framing lost");
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let packet = body.get_mut(..length).context("length")?;
        reader.read_exact(packet)?;
        // RFC 3550 section 5.1: the marker is the first bit of the second octet.
        if head[1] == 0 && packet.get(1).is_some_and(|octet| octet & 0x80 != 0) {
            seen.pictures.fetch_add(1, Ordering::Relaxed);
            if std::mem::take(&mut first) {
                seen.playing.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// An answer, byte by byte up to its body: packets follow it at once.
fn response(reader: &mut BufReader<TcpStream>) -> Result<rtsp::Message> {
    let mut read = Vec::new();
    loop {
        let mut byte = [0];
        reader.read_exact(&mut byte)?;
        read.push(byte[0]);
        if let Some((message, _)) = rtsp::parse(&read)? {
            return Ok(message);
        }
    }
}
