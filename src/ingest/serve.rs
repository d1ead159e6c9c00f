//! Listening for devices that call us: limits, and goodbyes that they can bear.

use crate::access::crowd::Crowd;
use socket2::SockRef;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// After an accept that failed, as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two log lines on the same matter.
const SELDOM: Duration = Duration::from_secs(60);

/// How many connections are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// At the same time. As many again wait for a place.
    pub connections: usize,
    /// From one address, those that wait included.
    pub per_address: usize,
    /// How long a connection waits for a place.
    pub wait: Duration,
}

/// Serves the connections of `listeners`, each in a task of its own, until `cancel` is cancelled and all tasks have ended.
/// Connections over the limits are reset, so that a device tries again.
pub(super) async fn serve_tcp<F: Future<Output = ()> + Send + 'static>(
    listeners: Vec<TcpListener>,
    limits: Limits,
    cancel: &CancellationToken,
    talk: impl Fn(TcpStream, SocketAddr) -> F + Clone + Send + 'static,
) {
    let tasks = TaskTracker::new();
    let places = Arc::new(Semaphore::new(limits.connections));
    let queue = Arc::new(Semaphore::new(limits.connections.saturating_mul(2)));
    let (crowd, seldom) = (Arc::<Crowd>::default(), Seldom::default());
    let accept = async |listener: TcpListener| {
        loop {
            let accepted = tokio::select! {
                () = cancel.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be taken");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let counted = crowd.count(peer.ip().to_canonical(), limits.per_address);
            let spot = Arc::clone(&queue).try_acquire_owned();
            let (Some(counted), Ok(spot)) = (counted, spot) else {
                if let Some(more) = seldom.ripe(Instant::now()) {
                    tracing::warn!(from = %peer.ip(), more, "a device has too many connections; they are reset");
                }
                reset(socket);
                continue;
            };
            let (places, cancel, talk) = (Arc::clone(&places), cancel.clone(), talk.clone());
            tasks.spawn(async move {
                let place = tokio::select! {
                    () = cancel.cancelled() => None,
                    place = tokio::time::timeout(limits.wait, places.acquire_owned()) => place.ok().and_then(Result::ok),
                };
                match place {
                    Some(place) => {
                        talk(socket, peer).await;
                        drop(place);
                    }
                    None => reset(socket),
                }
                drop((spot, counted));
            });
        }
    };
    futures::future::join_all(listeners.into_iter().map(accept)).await;
    tasks.close();
    tasks.wait().await;
}

/// Ends a connection by RST: the other side sees a fault, not a goodbye.
pub(super) fn reset(socket: TcpStream) {
    // If it fails the connection has ended already.
    let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
}

/// Lets one log line a minute through, so that nobody can fill the disk.
#[derive(Debug, Default)]
pub(super) struct Seldom(Mutex<(Option<Instant>, u64)>);

impl Seldom {
    /// Whether it is time for a line again; with the number of those that were not written since the last.
    pub(super) fn ripe(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, suppressed) = &mut *state;
        if last.is_some_and(|last| now.saturating_duration_since(last) < SELDOM) {
            *suppressed += 1;
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Echoes what comes, until the other side is done.
    async fn echo(mut socket: TcpStream, _peer: SocketAddr) {
        let mut buffer = [0; 16];
        while let Ok(count @ 1..) = socket.read(&mut buffer).await {
            socket.write_all(&buffer[..count]).await.unwrap();
        }
    }

    /// Answers whether the connection is served; if not, it must be reset.
    async fn served(socket: &mut TcpStream) -> bool {
        // A write may succeed before the reset arrives, or be the one that is told of it.
        if socket.write_all(b"x").await.is_err() {
            return false;
        }
        match socket.read(&mut [0; 1]).await {
            Ok(1) => true,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn connections_over_the_limits_are_reset_and_others_are_served() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let cancel = CancellationToken::new();
        let limits = Limits { connections: 3, per_address: 2, wait: Duration::from_secs(60) };
        let ending = cancel.clone();
        let serving = tokio::spawn(async move { serve_tcp(vec![listener], limits, &ending, echo).await });
        let connect = async |last: u8| {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::from(([127, 0, 77, last], 0))).unwrap();
            socket.connect(address).await.unwrap()
        };
        let (mut first, mut second, mut third) = (connect(1).await, connect(1).await, connect(1).await);
        assert!(served(&mut first).await && served(&mut second).await);
        assert!(!served(&mut third).await, "two an address");
        let mut other = connect(2).await;
        assert!(served(&mut other).await);
        // All places are taken: the next waits for one instead of being turned away.
        let mut patient = connect(2).await;
        patient.write_all(b"x").await.unwrap();
        drop(first);
        patient.read_exact(&mut [0; 1]).await.unwrap();
        drop((second, other, patient));
        cancel.cancel();
        serving.await.unwrap();
    }

    #[test]
    fn one_line_a_minute() {
        let (seldom, now) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.ripe(now), Some(0));
        assert_eq!((seldom.ripe(now), seldom.ripe(now + SELDOM / 2)), (None, None));
        assert_eq!(seldom.ripe(now + SELDOM), Some(2));
    }
}
