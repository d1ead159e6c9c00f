//! Requests and answers.

use super::Gateway;
use crate::support::publisher::Publisher;
use crate::support::rtsp_client::Client;
use fanlight::republish::rtsp::Options;
use std::time::Duration;
use tokio::net::UdpSocket;

const TCP: (&str, &str) = ("Transport", "RTP/AVP/TCP;unicast;interleaved=0-1");

#[tokio::test]
async fn options_lists_what_vlc_decides_its_keepalive_from() {
    let gateway = Gateway::start();
    let mut client = Client::connect(gateway.address, "nowhere").await;
    let reply = client.request("OPTIONS", "*", &[]).await;
    assert_eq!(reply.status, 200);
    let public: Vec<_> = reply.header("Public").unwrap().split(", ").collect();
    for method in ["DESCRIBE", "SETUP", "PLAY", "PAUSE", "TEARDOWN", "OPTIONS", "GET_PARAMETER", "SET_PARAMETER"] {
        assert!(public.contains(&method), "{method}");
    }
}

#[tokio::test]
async fn describe_has_what_every_player_wants() {
    let gateway = Gateway::start();
    let mut camera = Publisher::new(&gateway.bus, "porch", true);
    camera.pictures(3);
    let mut client = Client::connect(gateway.address, "porch").await;
    let reply = client.request("DESCRIBE", &client.base.clone(), &[("Accept", "application/sdp")]).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("Content-Base"), Some(format!("{}/", client.base).as_str()));
    assert_eq!(reply.header("Content-Type"), Some("application/sdp"));
    let lines: Vec<_> = reply.body.lines().collect();
    let session_end = lines.iter().position(|line| line.starts_with("m=")).unwrap();
    assert!(lines[..session_end].contains(&"a=control:*"));
    assert!(lines[..session_end].contains(&"a=range:npt=now-"));
    for line in ["a=control:trackID=0", "a=control:trackID=1", "a=framerate:25", "m=audio 0 RTP/AVP 0"] {
        assert!(lines.contains(&line), "{line} is missing in {}", reply.body);
    }
    let fmtp = lines.iter().find(|line| line.starts_with("a=fmtp:96 ")).unwrap();
    assert!(fmtp.contains("packetization-mode=1") && fmtp.contains("profile-level-id=42C00D"));
    assert!(fmtp.contains("sprop-parameter-sets=Z0LADdoF") && fmtp.contains(",aM4PyA=="));

    let quiet = client.request("DESCRIBE", &format!("{}?audio=none", client.base), &[]).await;
    assert!(!quiet.body.contains("m=audio") && quiet.body.contains("m=video"));
}

#[tokio::test]
async fn describe_waits_for_the_first_key_picture_and_says_when_it_gives_up() {
    let options = Options { ready_wait: Duration::from_millis(200), ..Options::default() };
    let gateway = Gateway::with(options, "127.0.0.1:0", true);
    let mut camera = gateway.camera("porch");
    let mut client = Client::connect(gateway.address, "porch").await;
    let uri = client.base.clone();
    let reply = client.request("DESCRIBE", &uri, &[]).await;
    assert_eq!(reply.status, 503);
    assert!(reply.header("Retry-After").unwrap().parse::<u32>().is_ok());

    let gateway = Gateway::start();
    let mut late = gateway.camera("porch");
    let mut client = Client::connect(gateway.address, "porch").await;
    let stream = std::sync::Arc::clone(&late.stream);
    let waiting = tokio::spawn(async move { client.request("DESCRIBE", &uri, &[]).await.status });
    crate::support::until("somebody wants it", || stream.demand.count() > 0).await;
    late.picture();
    assert_eq!(waiting.await.unwrap(), 200);
    camera.picture();
}

#[tokio::test]
async fn only_unknown_names_are_not_found() {
    let gateway = Gateway::start();
    let mut camera = gateway.camera("porch");
    camera.pictures(1);
    let mut client = Client::connect(gateway.address, "").await;
    let base = format!("rtsp://{}", gateway.address);
    for (path, status) in [("/nowhere", 404), ("/porch/other", 404), ("", 404), ("/", 404), ("/porch", 200)] {
        assert_eq!(client.request("DESCRIBE", &format!("{base}{path}"), &[]).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn paths_may_be_written_in_any_way() {
    let gateway = Gateway::start();
    let mut camera = gateway.camera("front-door");
    camera.pictures(1);
    let mut client = Client::connect(gateway.address, "").await;
    let base = format!("rtsp://{}", gateway.address);
    for path in
        ["/front-door", "/front-door/", "/front%2Ddoor", "/front-door?tcp", "/front-door/?a=b&c", "/front-door/sub"]
    {
        assert_eq!(client.request("DESCRIBE", &format!("{base}{path}"), &[]).await.status, 200, "{path}");
    }
    assert_eq!(client.request("DESCRIBE", "/front-door", &[]).await.status, 200);
}

#[tokio::test]
async fn every_form_of_setup_url_works() {
    let gateway = Gateway::start();
    let mut camera = Publisher::new(&gateway.bus, "porch", true);
    camera.pictures(2);
    let base = format!("rtsp://{}/porch", gateway.address);
    let forms = [
        format!("{base}/trackID=0"),
        format!("{base}/trackID=0/"),
        format!("{base}?x=y/trackID=0"),
        format!("{base}/?x=y/trackID=0"),
        "/porch/trackID=0".to_owned(),
        "trackID=0".to_owned(),
        base.clone(),
        format!("{base}/"),
    ];
    for form in forms {
        let mut client = Client::connect(gateway.address, "porch").await;
        assert_eq!(client.request("DESCRIBE", &base, &[]).await.status, 200);
        let setup = client.request("SETUP", &form, &[TCP]).await;
        assert_eq!(setup.status, 200, "{form}: {setup:?}");
        assert_eq!(client.request("PLAY", &base, &[]).await.status, 200, "{form}");
        client.rtp(0).await;
    }
}

#[tokio::test]
async fn tcp_uses_the_clients_channels_and_udp_its_ports() {
    let gateway = Gateway::start();
    let mut camera = Publisher::new(&gateway.bus, "porch", true);
    camera.pictures(30);
    let mut client = Client::connect(gateway.address, "porch").await;
    let uri = client.base.clone();
    client.request("DESCRIBE", &uri, &[]).await;
    let transport = [("Transport", "RTP/AVP/TCP;unicast;interleaved=8-9")];
    let setup = client.request("SETUP", &format!("{uri}/trackID=0"), &transport).await;
    assert!(setup.header("Transport").unwrap().contains("interleaved=8-9"));
    // The same channels for another track cannot be: we choose.
    let setup = client.request("SETUP", &format!("{uri}/trackID=1"), &transport).await;
    assert!(setup.header("Transport").unwrap().contains("interleaved=0-1"));
    assert_eq!(client.request("PLAY", &uri, &[]).await.status, 200);
    client.rtp(8).await;
    client.rtp(0).await;

    let rtp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let rtcp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let ports = format!("{}-{}", rtp.local_addr().unwrap().port(), rtcp.local_addr().unwrap().port());
    let mut client = Client::connect(gateway.address, "porch").await;
    client.request("DESCRIBE", &uri, &[]).await;
    let transport = format!("RTP/AVP;unicast;client_port={ports}");
    let setup = client.request("SETUP", &format!("{uri}/trackID=0"), &[("Transport", &transport)]).await;
    let answer = setup.header("Transport").unwrap().to_owned();
    let (server_rtp, server_rtcp) = gateway.udp_ports;
    assert!(answer.contains(&format!("client_port={ports};server_port={server_rtp}-{server_rtcp}")), "{answer}");
    assert_eq!(client.request("PLAY", &uri, &[]).await.status, 200);
    let mut packet = [0; 2_000];
    let (_, from) = rtp.recv_from(&mut packet).await.unwrap();
    assert_eq!((from.port(), packet[0]), (server_rtp, 0x80));
    let (_, from) = rtcp.recv_from(&mut packet).await.unwrap();
    assert_eq!((from.port(), packet[1]), (server_rtcp, 200));
}

#[tokio::test]
async fn what_is_off_is_refused_so_that_the_client_falls_back() {
    let gateway = Gateway::with(Options::default(), "127.0.0.1:0", false);
    let mut camera = gateway.camera("porch");
    camera.pictures(1);
    let mut client = Client::connect(gateway.address, "porch").await;
    let track = format!("{}/trackID=0", client.base);
    for transport in ["RTP/AVP;unicast;client_port=5000-5001", "RTP/AVP;multicast", "RTP/SAVP/TCP;interleaved=0-1", ""]
    {
        let setup = client.request("SETUP", &track, &[("Transport", transport)]).await;
        assert_eq!(setup.status, 461, "{transport}");
    }
    let either = "RTP/AVP;unicast;client_port=5000-5001,RTP/AVP/TCP;unicast;interleaved=0-1";
    assert_eq!(client.request("SETUP", &track, &[("Transport", either)]).await.status, 200);
}

#[tokio::test]
async fn requests_are_answered_while_media_flows() {
    let gateway = Gateway::start();
    let mut camera = gateway.camera("porch");
    camera.pictures(30);
    let running = camera.run();
    let mut client = Client::connect(gateway.address, "porch").await;
    client.play().await;
    let uri = client.base.clone();
    for method in ["OPTIONS", "GET_PARAMETER", "SET_PARAMETER", "GET_PARAMETER"] {
        let before = client.picture(0).await;
        let reply = client.request(method, &uri, &[]).await;
        assert_eq!(reply.status, 200);
        assert!(reply.header("Session").unwrap().ends_with(";timeout=60"), "{reply:?}");
        assert!(client.picture(0).await > before);
    }
    drop(running);
}

#[tokio::test]
async fn sessions_that_are_not_ours_are_unknown() {
    let gateway = Gateway::start();
    let mut camera = gateway.camera("porch");
    camera.pictures(1);
    let mut client = Client::connect(gateway.address, "porch").await;
    let uri = client.base.clone();
    for method in ["PLAY", "PAUSE", "TEARDOWN"] {
        assert_eq!(client.request(method, &uri, &[]).await.status, 454, "{method}");
    }
    client.play().await;
    client.session = Some("0123456789abcdef".into());
    assert_eq!(client.request("TEARDOWN", &uri, &[]).await.status, 454);
    assert_eq!(client.request("GET_PARAMETER", &uri, &[]).await.status, 454);
}

#[tokio::test]
async fn what_nobody_needs_is_refused_with_words() {
    let gateway = Gateway::start();
    let mut client = Client::connect(gateway.address, "porch").await;
    assert_eq!(client.request("ANNOUNCE", "*", &[]).await.status, 405);
    assert_eq!(client.request("RECORD", "*", &[]).await.status, 405);
    assert_eq!(client.request("DANCE", "*", &[]).await.status, 501);
    let reply = client.request("SETUP", "*", &[("Require", "play.scale")]).await;
    assert_eq!((reply.status, reply.header("Unsupported")), (551, Some("play.scale")));
}

#[tokio::test]
async fn what_cannot_be_read_is_answered_and_the_connection_goes_on() {
    let gateway = Gateway::start();
    let mut client = Client::connect(gateway.address, "porch").await;
    client.write(b"NONSENSE\r\nCSeq: 41\r\n\r\n").await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.header("CSeq")), (400, Some("41")));
    assert_eq!(client.request("OPTIONS", "*", &[]).await.status, 200);
    client.write(&[b'x'; 20_000]).await;
    assert_eq!(client.reply().await.status, 400);
    assert!(client.frame_or_end().await.is_none());
}

#[tokio::test]
async fn pause_teardown_and_setup_again() {
    let gateway = Gateway::start();
    let mut camera = gateway.camera("porch");
    camera.pictures(30);
    let running = camera.run();
    let mut client = Client::connect(gateway.address, "porch").await;
    let uri = client.base.clone();
    client.play().await;
    client.picture(0).await;
    assert_eq!(running.device.viewers.rtsp.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert_eq!(client.request("PAUSE", &uri, &[]).await.status, 200);
    assert_eq!(running.device.viewers.rtsp.load(std::sync::atomic::Ordering::Relaxed), 0);
    // Whatever was on the way came before the answer; nothing comes after it.
    while let Some((channel, _)) = client.take_waiting() {
        assert!(channel <= 1);
    }
    let quiet = tokio::time::timeout(Duration::from_millis(300), client.frame()).await;
    assert!(quiet.is_err(), "media after PAUSE");
    assert_eq!(client.request("PLAY", &uri, &[]).await.status, 200);
    client.picture(0).await;
    assert_eq!(client.request("TEARDOWN", &uri, &[]).await.status, 200);
    client.session = None;
    client.play().await;
    client.picture(0).await;
}

#[tokio::test]
async fn over_ipv6() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: this machine has no IPv6 loopback");
        return;
    }
    let gateway = Gateway::with(Options::default(), "[::1]:0", true);
    let mut camera = gateway.camera("porch");
    camera.pictures(30);
    let running = camera.run();
    let mut client = Client::connect(gateway.address, "porch").await;
    let uri = client.base.clone();
    let reply = client.request("DESCRIBE", &uri, &[]).await;
    assert!(reply.body.contains("IN IP6 ::1\r\n"), "{}", reply.body);
    assert_eq!(reply.header("Content-Base"), Some(format!("rtsp://{}/porch/", gateway.address).as_str()));
    client.play().await;
    client.picture(0).await;

    let rtp = UdpSocket::bind("[::1]:0").await.unwrap();
    let port = rtp.local_addr().unwrap().port();
    let mut client = Client::connect(gateway.address, "porch").await;
    let transport = format!("RTP/AVP/UDP;unicast;client_port={port}-{}", port - 1);
    let setup = client.request("SETUP", &format!("{uri}/trackID=0"), &[("Transport", &transport)]).await;
    assert_eq!(setup.status, 200);
    assert_eq!(client.request("PLAY", &uri, &[]).await.status, 200);
    let mut packet = [0; 2_000];
    rtp.recv_from(&mut packet).await.unwrap();
    drop(running);
}
