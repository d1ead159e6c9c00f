//! RTSP within TLS.
//!
//! The connection writes its pictures from many tasks at once, each with one `write` that takes what it can; TLS has one
//! writer that keeps what it took. So a task of its own carries the bytes between the TLS stream and a pair of local
//! sockets, whose other end the connection has in place of the client's: a client that is slow fills them as it would
//! fill its own socket, and everything else stays as it is.

use super::connection::{self, Peer};
use super::output::Socket;
use super::server::Shared;
use crate::access::Tls;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;

/// Requests are small; pictures go out in TLS records of 16 KiB (RFC 8446 section 5.1).
const IN: usize = 4 << 10;
const OUT: usize = 16 << 10;
/// How long the last bytes may take after the connection has ended.
const LAST: Duration = Duration::from_secs(1);

/// Shakes hands, then serves the connection until either side ends it.
pub(super) async fn serve(shared: &Arc<Shared>, tls: &Tls, socket: TcpStream, peer: Peer, cancel: CancellationToken) {
    let handshake = tokio::time::timeout(shared.options.handshake, tls.accept(socket));
    let shaken = tokio::select! {
        shaken = handshake => shaken,
        () = cancel.cancelled() => return,
    };
    let mut outside = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(peer = %peer.address, %error, "no TLS with this client"),
        Err(_) => return tracing::debug!(peer = %peer.address, "a TLS handshake took too long"),
    };
    let (near, mut far) = match UnixStream::pair() {
        Ok(pair) => pair,
        Err(error) => return tracing::warn!(%error, "no sockets for an RTSP connection over TLS"),
    };
    // Ends when the connection drops its end; the rest of a goodbye is still carried then.
    let carry = tokio::spawn(async move {
        // However the client ended, its connection is closed.
        let _ = copy_bidirectional_with_sizes(&mut outside, &mut far, IN, OUT).await;
    });
    let abort = carry.abort_handle();
    connection::serve(shared, Socket::Tunnel(near), peer, cancel).await;
    if tokio::time::timeout(LAST, carry).await.is_err() {
        abort.abort();
    }
}
