//! Viewers behind NAT and firewalls: gateway, router and viewer in network namespaces of their own. The viewer is
//! GStreamer's webrtcbin, which knows UDP and ICE-TCP.
//!
//! Where namespaces may not be made, these tests pass without having tried anything, and say so on standard error;
//! `FANLIGHT_NETNS=required` makes that a failure.

mod lab;

use crate::support::until;
use lab::{Lab, Space};
use serde_json::Value;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::Child;

/// Nobody else is in the gateway's namespace: the usual ports are free.
const HTTP: u16 = 8484;
const WEBRTC: u16 = 8555;

/// Lets in what the gateway is said to need and nothing else, and counts what it sends by WebRTC.
const FIREWALL: &str = "
table inet house {
    counter udp_out {}
    counter tcp_out {}
    chain incoming {
        type filter hook input priority 0; policy drop;
        iif lo accept
        tcp dport { 8484, 8555 } accept
        udp dport 8555 accept
    }
    chain outgoing {
        type filter hook output priority 0; policy accept;
        oif lo accept
        udp sport 8555 counter name udp_out
        tcp sport 8555 counter name tcp_out
    }
}
";

/// A camera and the program in front of it, both in one namespace.
struct House {
    space: Space,
    program: Child,
    _camera: Child,
    folder: TempDir,
}

impl House {
    /// Until the gateway has pictures; `candidates` as in the configuration.
    async fn build(space: Space, candidates: &str) -> Self {
        space.nft(FIREWALL).await;
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| std::fs::File::create(folder.path().join(name)).unwrap();
        let program = env!("CARGO_BIN_EXE_fanlight");
        let mut camera = space.command(program);
        camera.args(["simulate", "rtsp", "--listen", "127.0.0.1:5554", "--audio", "none"]);
        let camera = camera.stdout(Stdio::null()).stderr(file("camera.txt")).spawn().unwrap();
        let config = format!(
            "http: {{ listen: \"0.0.0.0:{HTTP}\" }}\nrtsp: {{ listen: \"127.0.0.1:0\", udp_ports: 0 }}\n\
             webrtc: {{ listen: \"0.0.0.0:{WEBRTC}\", candidates: [{candidates}] }}\nauth: none\n\
             cameras:\n  street: {{ source: \"rtsp://127.0.0.1:5554/Streaming/Channels/101\" }}\n"
        );
        std::fs::write(folder.path().join("fanlight.yaml"), config).unwrap();
        let mut command = space.command(program);
        command.args(["run", "--ports-file", "ports.json"]).current_dir(folder.path());
        command.env_remove("RUST_LOG").env_remove("STATE_DIRECTORY");
        let program = command.stdout(Stdio::null()).stderr(file("log.txt")).spawn().unwrap();
        let house = Self { space, program, _camera: camera, folder };
        let ports = house.folder.path().join("ports.json");
        until("the ports file is there", || ports.exists()).await;
        house
    }

    /// Bytes sent by WebRTC over UDP and over TCP.
    async fn sent(&self) -> (u64, u64) {
        (self.space.counted("house", "udp_out").await, self.space.counted("house", "tcp_out").await)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log.txt")).unwrap()
    }

    async fn end(mut self) {
        self.program.start_kill().unwrap();
        self.program.wait().await.unwrap();
    }
}

/// Plays for three seconds from the first picture on, for which it waits so long; answers what was seen.
async fn watch(viewer: &Space, address: &str, url: &str, patience: Duration) -> Value {
    let mut command = viewer.command("/usr/bin/python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/players/whep_webrtcbin.py"));
    command.args([url, "3", "--address", address, "--patience", &patience.as_secs().to_string()]);
    let output = command.stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let output =
        tokio::time::timeout(patience + Duration::from_secs(60), output).await.expect("the viewer ends").unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    let told = log.lines().last().and_then(|line| serde_json::from_str(line).ok());
    told.unwrap_or_else(|| panic!("the viewer ended with {}:\n{log}", output.status))
}

/// Viewer at 192.168.7.2, router, gateway at 198.51.100.10, which has no way back but to the router's own address.
async fn behind_nat(lab: &Lab, router_rules: &str) -> (Space, Space, Space) {
    let [gateway, router, viewer] = [lab.space().await, lab.space().await, lab.space().await];
    router.link("wan", "198.51.100.1/24", &gateway, "eth0", "198.51.100.10/24").await;
    router.link("lan", "192.168.7.1/24", &viewer, "eth0", "192.168.7.2/24").await;
    viewer.run("ip route add default via 192.168.7.1").await;
    router.forwards().await;
    router.nft("table ip nat { chain out { type nat hook postrouting priority 100; oifname wan masquerade; }; }").await;
    router.nft(router_rules).await;
    (gateway, router, viewer)
}

const ENOUGH: u64 = 100_000;
/// What checks and handshakes may take on the transport that is not used.
const LITTLE: u64 = 20_000;
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_behind_nat_plays_over_udp() {
    let Some(lab) = Lab::or_skip().await else { return };
    let (gateway, _router, viewer) = behind_nat(&lab, "").await;
    let house = House::build(gateway, "").await;
    let url = format!("http://198.51.100.10:{HTTP}/whep/street");
    let told = watch(&viewer, "192.168.7.2", &url, PATIENCE).await;
    assert!(told["pictures"].as_u64().unwrap() > 30, "{told}\n{}", house.log());
    let (udp, tcp) = house.sent().await;
    assert!(udp > ENOUGH && tcp < LITTLE, "{udp} bytes over UDP, {tcp} over TCP\n{}", house.log());
    house.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_udp_is_blocked_ice_tcp_wins() {
    let Some(lab) = Lab::or_skip().await else { return };
    let blocked = "table inet wall { chain through { type filter hook forward priority 0; ip protocol udp drop; }; }";
    let (gateway, _router, viewer) = behind_nat(&lab, blocked).await;
    let house = House::build(gateway, "").await;
    let url = format!("http://198.51.100.10:{HTTP}/whep/street");
    let told = watch(&viewer, "192.168.7.2", &url, PATIENCE).await;
    assert!(told["pictures"].as_u64().unwrap() > 30, "{told}\n{}", house.log());
    let (udp, tcp) = house.sent().await;
    assert!(tcp > ENOUGH && udp == 0, "{udp} bytes over UDP, {tcp} over TCP\n{}", house.log());
    house.end().await;
}

/// The gateway is at 10.0.0.10 behind a router that forwards ports of 203.0.113.1 to it, the WebRTC one under another
/// number. It cannot know that, and is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_behind_nat_plays_by_a_candidate_given_by_hand() {
    let Some(lab) = Lab::or_skip().await else { return };
    let [gateway, router, viewer] = [lab.space().await, lab.space().await, lab.space().await];
    router.link("lan", "10.0.0.1/24", &gateway, "eth0", "10.0.0.10/24").await;
    router.link("wan", "203.0.113.1/24", &viewer, "eth0", "203.0.113.2/24").await;
    gateway.run("ip route add default via 10.0.0.1").await;
    router.forwards().await;
    let rules = "
table ip nat {
    chain incoming {
        type nat hook prerouting priority -100; policy accept;
        iifname wan tcp dport 80 dnat to 10.0.0.10:8484
        iifname wan tcp dport 18555 dnat to 10.0.0.10:8555
        iifname wan udp dport 18555 dnat to 10.0.0.10:8555
    }
}
table ip wall {
    chain through {
        type filter hook forward priority 0; policy drop;
        ct status dnat accept
    }
}
";
    router.nft(rules).await;
    let url = "http://203.0.113.1/whep/street";
    let house = House::build(gateway, "").await;
    let told = watch(&viewer, "203.0.113.2", url, Duration::from_secs(6)).await;
    assert_eq!(told["pictures"], 0, "the address of the gateway's own network is of no use: {told}");
    let space = house.space.clone();
    house.end().await;
    space.run("nft delete table inet house").await;

    let house = House::build(space, "\"203.0.113.1:18555\"").await;
    let told = watch(&viewer, "203.0.113.2", url, PATIENCE).await;
    assert!(told["pictures"].as_u64().unwrap() > 30, "{told}\n{}", house.log());
    let (udp, tcp) = house.sent().await;
    assert!(udp > ENOUGH && tcp < LITTLE, "{udp} bytes over UDP, {tcp} over TCP\n{}", house.log());
    house.end().await;
}
