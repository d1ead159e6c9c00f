//! A reverse proxy that serves the gateway below a path, as Home Assistant's ingress does: it takes the prefix off each
//! request and touches nothing else.

use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// Starts it for as long as the test runs; gives its address.
pub(super) async fn start(prefix: &'static str, gateway: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = pass(socket, prefix, gateway).await;
            });
        }
    });
    address
}

async fn pass(mut browser: TcpStream, prefix: &str, gateway: SocketAddr) -> std::io::Result<()> {
    let mut request = Vec::new();
    let end = loop {
        if let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if browser.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    };
    let rest = request.split_off(end);
    let head = String::from_utf8_lossy(&request);
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let inside = line.splitn(3, ' ').collect::<Vec<_>>();
    let path = inside.get(1).and_then(|path| path.strip_prefix(prefix)).filter(|path| path.starts_with('/'));
    let Some(path) = path else {
        let answer = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return browser.write_all(answer.as_bytes()).await;
    };
    // One request a connection: then all that follows can be copied.
    let mut head = format!("{} {path} HTTP/1.1\r\nConnection: close\r\n", inside[0]);
    for line in lines.filter(|line| !line.to_ascii_lowercase().starts_with("connection:")) {
        head += line;
        head += "\r\n";
    }
    let mut upstream = TcpStream::connect(gateway).await?;
    upstream.write_all(head.trim_end_matches("\r\n").as_bytes()).await?;
    upstream.write_all(&rest).await?;
    copy_bidirectional(&mut browser, &mut upstream).await.map(|_| ())
}
