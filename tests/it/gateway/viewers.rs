//! Viewers that run beside a test and tell how they fare.

use crate::support::rtsp_client::{Client, Rtp};
use crate::support::until;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// How RTP comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    Tcp,
    Udp,
}

/// A viewer of video that never gives up by itself; dropping it ends it.
pub(super) struct Viewer {
    pictures: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Viewer {
    /// Connects and plays; a stream that is not ready (503) is asked for again, as recorders do.
    pub(super) fn start(server: SocketAddr, path: &str, carrier: Carrier) -> Self {
        let pictures = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(watch(server, path.to_owned(), carrier, Arc::clone(&pictures)));
        Self { pictures, task }
    }

    /// Pictures received whole, or at least to their end.
    pub(super) fn pictures(&self) -> u64 {
        self.pictures.load(SeqCst)
    }

    /// Whether the server has ended it.
    pub(super) fn ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until it has seen so many pictures; fails if it is ended or falls silent.
    pub(super) async fn sees(&self, count: u64) {
        until(&format!("a viewer has seen {count} pictures"), || {
            assert!(!self.ended(), "the viewer's connection was ended");
            self.pictures() >= count
        })
        .await;
    }

    /// Waits until the server ends it.
    pub(super) async fn is_ended(&self) {
        until("the viewer is ended", || self.ended()).await;
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(server: SocketAddr, path: String, carrier: Carrier, pictures: Arc<AtomicU64>) {
    let mut client = Client::connect(server, &path).await;
    let uri = client.base.clone();
    while client.request("DESCRIBE", &uri, &[]).await.status == 503 {}
    // As most players do: even for RTP, and the next one for RTCP.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let transport = match carrier {
        Carrier::Tcp => "RTP/AVP/TCP;unicast;interleaved=0-1".to_owned(),
        Carrier::Udp => format!("RTP/AVP;unicast;client_port={port}-{}", port ^ 1),
    };
    let setup = client.request("SETUP", &format!("{uri}/trackID=0"), &[("Transport", &transport)]).await;
    assert_eq!(setup.status, 200, "{setup:?}");
    let play = client.request("PLAY", &uri, &[]).await;
    assert_eq!(play.status, 200, "{play:?}");
    match carrier {
        Carrier::Tcp => {
            while let Some((channel, packet)) = client.frame_or_end().await {
                if channel == 0 && Rtp::parse(&packet).marker {
                    pictures.fetch_add(1, SeqCst);
                }
            }
        }
        Carrier::Udp => {
            let mut packet = [0; 2_000];
            // Keeps the session alive, and notices its end.
            let mut alive = tokio::time::interval(Duration::from_secs(1));
            loop {
                tokio::select! {
                    received = socket.recv(&mut packet) => {
                        let size = received.unwrap();
                        if Rtp::parse(&packet[..size].to_vec().into()).marker {
                            pictures.fetch_add(1, SeqCst);
                        }
                    }
                    _ = alive.tick() => {
                        assert_eq!(client.request("GET_PARAMETER", &uri, &[]).await.status, 200);
                    }
                }
            }
        }
    }
}

/// All of them have seen that many pictures more than now.
pub(super) async fn all_see_more(viewers: &[Viewer], count: u64) {
    let goals: Vec<_> = viewers.iter().map(|viewer| viewer.pictures() + count).collect();
    for (viewer, goal) in viewers.iter().zip(goals) {
        viewer.sees(goal).await;
    }
}
