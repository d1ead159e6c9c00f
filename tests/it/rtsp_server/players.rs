//! The request sequences of players that cannot run here, replayed: VLC (live555's client library) and Blue Iris.
//! Orders and headers are as in their users' logs and packet captures.

use super::Gateway;
use crate::support::publisher::Publisher;
use crate::support::rtsp_client::Client;
use tokio::net::UdpSocket;

/// VLC: OPTIONS, DESCRIBE, SETUP of each track over UDP, PLAY, then GET_PARAMETER as keepalive because OPTIONS listed
/// it, TEARDOWN at the end. Its URLs are the Content-Base with the control appended.
#[tokio::test]
async fn vlc() {
    let gateway = Gateway::start();
    let mut camera = Publisher::new(&gateway.bus, "porch", true);
    camera.pictures(40);
    let running = camera.run();
    let agent = ("User-Agent", "LibVLC/3.0.18 (LIVE555 Streaming Media v2016.11.28)");
    let mut client = Client::connect(gateway.address, "porch").await;
    let uri = client.base.clone();
    let options = client.request("OPTIONS", &uri, &[agent]).await;
    assert!(options.header("Public").unwrap().contains("GET_PARAMETER"));
    let describe = client.request("DESCRIBE", &uri, &[agent, ("Accept", "application/sdp")]).await;
    let base = describe.header("Content-Base").unwrap().to_owned();
    let mut sockets = Vec::new();
    for track in 0..2 {
        let (rtp, rtcp) =
            (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let (a, b) = (rtp.local_addr().unwrap().port(), rtcp.local_addr().unwrap().port());
        let transport = format!("RTP/AVP;unicast;client_port={a}-{b}");
        let setup =
            client.request("SETUP", &format!("{base}trackID={track}"), &[agent, ("Transport", &transport)]).await;
        assert_eq!(setup.status, 200);
        assert!(setup.header("Transport").unwrap().contains("server_port="));
        sockets.push((rtp, rtcp));
    }
    let play = client.request("PLAY", &base, &[agent, ("Range", "npt=0.000-")]).await;
    assert_eq!(play.header("RTP-Info").unwrap().split(',').count(), 2);
    let mut packet = [0; 2_000];
    for (rtp, rtcp) in &sockets {
        let (_, from) = rtcp.recv_from(&mut packet).await.unwrap();
        assert_eq!(packet[1], 200, "a sender report comes first");
        rtp.recv_from(&mut packet).await.unwrap();
        // Receiver report with source description.
        rtcp.send_to(&[0x80, 201, 0, 1, 0, 0, 0, 1, 0x81, 202, 0, 1, 0, 0, 0, 1], from).await.unwrap();
    }
    assert_eq!(client.request("GET_PARAMETER", &base, &[agent]).await.status, 200);
    assert_eq!(client.request("TEARDOWN", &base, &[agent]).await.status, 200);
    drop(running);
}

/// VLC when UDP does not come through: it tears down and begins again over TCP on the same connection, with the
/// channels 0-1 and 2-3.
#[tokio::test]
async fn vlc_falls_back_to_tcp() {
    let gateway = Gateway::start();
    let mut camera = Publisher::new(&gateway.bus, "porch", true);
    camera.pictures(40);
    let running = camera.run();
    let mut client = Client::connect(gateway.address, "porch").await;
    let uri = client.base.clone();
    client.request("DESCRIBE", &uri, &[]).await;
    client.request("SETUP", &format!("{uri}/trackID=0"), &[("Transport", "RTP/AVP;unicast;client_port=9-10")]).await;
    assert_eq!(client.request("PLAY", &format!("{uri}/"), &[]).await.status, 200);
    assert_eq!(client.request("TEARDOWN", &format!("{uri}/"), &[]).await.status, 200);
    client.session = None;
    client.request("DESCRIBE", &uri, &[]).await;
    for (track, channels) in [(0, "0-1"), (1, "2-3")] {
        let transport = format!("RTP/AVP/TCP;unicast;interleaved={channels}");
        let setup = client.request("SETUP", &format!("{uri}/trackID={track}"), &[("Transport", &transport)]).await;
        assert_eq!(setup.status, 200);
    }
    assert_eq!(client.request("PLAY", &format!("{uri}/"), &[]).await.status, 200);
    client.picture(0).await;
    client.rtp(2).await;
    drop(running);
}

/// Blue Iris: OPTIONS, DESCRIBE with its own agent, SETUP over TCP with the session-level control before it, PLAY on
/// the URL with a slash, OPTIONS as keepalive while media flows; a description without `a=control` is rejected.
#[tokio::test]
async fn blue_iris() {
    let gateway = Gateway::start();
    let mut camera = Publisher::new(&gateway.bus, "porch", true);
    camera.pictures(40);
    let running = camera.run();
    let agent = ("User-Agent", "BlueIris");
    let mut client = Client::connect(gateway.address, "porch").await;
    let uri = client.base.clone();
    assert_eq!(client.request("OPTIONS", &uri, &[agent]).await.status, 200);
    let describe = client.request("DESCRIBE", &uri, &[agent, ("Accept", "application/sdp")]).await;
    let controls: Vec<_> = describe.body.lines().filter_map(|line| line.strip_prefix("a=control:")).collect();
    assert_eq!(controls, ["*", "trackID=0", "trackID=1"]);
    for (track, channels) in [(0, "0-1"), (1, "2-3")] {
        let transport = format!("RTP/AVP/TCP;unicast;interleaved={channels}");
        let setup =
            client.request("SETUP", &format!("{uri}/trackID={track}"), &[agent, ("Transport", &transport)]).await;
        assert!(setup.header("Session").unwrap().contains(";timeout=60"));
    }
    let play = client.request("PLAY", &format!("{uri}/"), &[agent, ("Range", "npt=0.000-")]).await;
    assert_eq!(play.status, 200);
    for _ in 0..3 {
        client.picture(0).await;
        assert_eq!(client.request("OPTIONS", &uri, &[agent]).await.status, 200);
        // A receiver report in the connection.
        client.write(&[b'$', 1, 0, 8, 0x80, 201, 0, 1, 0, 0, 0, 1]).await;
    }
    assert_eq!(client.request("TEARDOWN", &uri, &[agent]).await.status, 200);
    drop(running);
}
