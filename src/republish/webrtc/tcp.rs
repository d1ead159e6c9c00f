//! ICE over TCP: framed datagrams on connections that viewers open to us (RFC 6544, RFC 4571).

use super::mux::{Arrived, Inbox, Path, Routes};
use super::server::Options;
use crate::access::crowd::Crowd;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Bytes that wait for a viewer at most before it counts as late.
const QUEUE: usize = 256 << 10;
/// Unsent bytes in the kernel, so that what waits waits here, where it is seen.
const UNSENT: u32 = 64 << 10;
/// The longest frame that a viewer has reason to send.
const LONGEST: usize = 2_048;
/// How long a new connection may take to say what it is for.
const INTRODUCTION: Duration = Duration::from_secs(5);
/// How long a connection that takes not one byte is kept.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long the goodbye may take.
const FAREWELL: Duration = Duration::from_millis(500);

/// A viewer's connection.
#[derive(Debug)]
pub(super) struct Link {
    socket: TcpStream,
    remote: SocketAddr,
    queue: Mutex<BytesMut>,
    /// Something waits to be sent.
    filled: Notify,
    /// Something was sent.
    drained: Notify,
    /// The session has done with it: what waits is sent, then it is closed.
    done: CancellationToken,
    /// It is closed.
    closed: CancellationToken,
}

impl Link {
    /// The viewer's address.
    pub(super) fn remote(&self) -> SocketAddr {
        self.remote
    }

    fn queue(&self) -> MutexGuard<'_, BytesMut> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends packets that lie one after the other, each of that size; what the kernel does not take now waits here.
    pub(super) fn send(&self, packets: &[u8], sizes: impl Iterator<Item = usize>) {
        let mut framed = BytesMut::with_capacity(packets.len() + 64);
        let mut rest = packets;
        for size in sizes {
            let Some((packet, after)) = rest.split_at_checked(size) else { break };
            // A packet of ours never has more than 16 bits of size.
            framed.put_u16(packet.len() as u16);
            framed.put_slice(packet);
            rest = after;
        }
        let mut queue = self.queue();
        if queue.is_empty()
            && let Ok(sent) = self.socket.try_write(&framed)
        {
            framed.advance(sent);
        }
        if !framed.is_empty() {
            queue.put_slice(&framed);
            drop(queue);
            self.filled.notify_one();
        }
    }

    /// Whether more waits than should.
    pub(super) fn is_full(&self) -> bool {
        self.queue().len() > QUEUE
    }

    /// Waits until less waits than may; false if the connection is closed.
    pub(super) async fn room(&self) -> bool {
        loop {
            let drained = self.drained.notified();
            if !self.is_full() {
                return true;
            }
            tokio::select! {
                () = drained => {}
                () = self.closed.cancelled() => return false,
            }
        }
    }

    /// Waits until it is closed.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Sends what waits, then closes.
    pub(super) fn finish(&self) {
        self.done.cancel();
    }

    fn flush(&self) -> io::Result<bool> {
        let mut queue = self.queue();
        while !queue.is_empty() {
            match self.socket.try_write(&queue) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => queue.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        // A burst must not hold its memory for the rest of the session.
        *queue = BytesMut::new();
        Ok(true)
    }

    /// Sends what waits until the connection is closed or takes nothing any more.
    async fn write(&self) -> io::Result<()> {
        loop {
            let filled = self.filled.notified();
            let mut before = (self.queue().len(), Instant::now());
            while !self.flush()? {
                self.drained.notify_waiters();
                let left = self.queue().len();
                // More may have come in the meantime; only that nothing left for long tells.
                if left < before.0 {
                    before = (left, Instant::now());
                }
                let patience = PATIENCE.saturating_sub(before.1.elapsed());
                tokio::time::timeout(patience, self.socket.writable())
                    .await
                    .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            }
            self.drained.notify_waiters();
            filled.await;
        }
    }
}

/// Frames as they come in.
#[derive(Debug, Default)]
struct Frames(BytesMut);

impl Frames {
    /// The next whole frame.
    ///
    /// # Errors
    /// It would be longer than any viewer has reason to send.
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        let Some((head, _)) = self.0.split_first_chunk() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes(*head));
        if length > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if self.0.len() < 2 + length {
            return Ok(None);
        }
        self.0.advance(2);
        Ok(Some(self.0.split_to(length).freeze()))
    }
}

/// Accepts connections until cancelled.
pub(super) async fn accept(
    listener: TcpListener,
    routes: Arc<Routes>,
    options: Arc<Options>,
    tasks: TaskTracker,
    cancel: CancellationToken,
) {
    let crowd = Arc::new(Crowd::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = cancel.cancelled() => return,
        };
        let Ok((socket, remote)) = accepted else {
            // Out of descriptors, mostly: the connection stays in the queue, so do not spin on it.
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        // Browsers try several connections, one for each of our addresses.
        let Some(counted) = crowd.count(remote.ip().to_canonical(), options.per_address.saturating_mul(2)) else {
            continue;
        };
        let (routes, cancel) = (Arc::clone(&routes), cancel.clone());
        tasks.spawn(async move {
            if let Err(error) = serve(socket, remote, &routes, cancel).await {
                tracing::debug!(%remote, %error, "an ICE connection ended");
            }
            drop(counted);
        });
    }
}

async fn serve(socket: TcpStream, remote: SocketAddr, routes: &Routes, cancel: CancellationToken) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let tuned = SockRef::from(&socket);
    tuned.set_tcp_notsent_lowat(UNSENT)?;
    tuned.set_tcp_user_timeout(Some(PATIENCE))?;
    let link = Arc::new(Link {
        socket,
        remote,
        queue: Mutex::default(),
        filled: Notify::new(),
        drained: Notify::new(),
        done: CancellationToken::new(),
        closed: CancellationToken::new(),
    });
    let _closed = link.closed.clone().drop_guard();
    let mut frames = Frames::default();
    let introduction = tokio::time::timeout(INTRODUCTION, read(&link, &mut frames));
    let first = tokio::select! {
        first = introduction => first.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??,
        () = cancel.cancelled() => return Ok(()),
    };
    // Whoever does not name a session has no business here.
    let Some(inbox) = routes.find(&first, None) else { return Ok(()) };
    let deliver = |inbox: &Inbox, datagram| inbox.deliver(Arrived { path: Path::Tcp(Arc::clone(&link)), datagram });
    if !deliver(&inbox, first) {
        return Ok(());
    }
    let reading = async {
        loop {
            let frame = read(&link, &mut frames).await?;
            if !deliver(&inbox, frame) {
                return Ok::<_, io::Error>(());
            }
        }
    };
    tokio::select! {
        // The goodbye first: the session's end comes right after it.
        biased;
        () = link.done.cancelled() => {
            let farewell = async {
                while !link.flush()? {
                    link.socket.writable().await?;
                }
                Ok(())
            };
            tokio::time::timeout(FAREWELL, farewell).await.unwrap_or(Ok(()))
        }
        // Also of a connection that never became the session's path: browsers open several and leave them.
        () = inbox.ended() => Ok(()),
        result = reading => result,
        result = link.write() => result,
    }
}

async fn read(link: &Link, frames: &mut Frames) -> io::Result<Bytes> {
    loop {
        if let Some(frame) = frames.next()? {
            return Ok(frame);
        }
        link.socket.readable().await?;
        let mut chunk = [0; 2_048];
        match link.socket.try_read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => frames.0.put_slice(chunk.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_whole_whatever_the_reads_were() {
        let bytes = [&[0, 3, 1, 2, 3, 0, 0, 0, 1, 9][..], &[0, 2, 7]].concat();
        for size in 1..bytes.len() {
            let mut frames = Frames::default();
            let mut found = Vec::new();
            for chunk in bytes.chunks(size) {
                frames.0.put_slice(chunk);
                while let Some(frame) = frames.next().unwrap() {
                    found.push(frame.to_vec());
                }
            }
            assert_eq!(found, [vec![1, 2, 3], vec![], vec![9]]);
        }
        let mut frames = Frames(BytesMut::from(&[0xff, 0xff, 0][..]));
        assert!(frames.next().is_err());
    }
}
