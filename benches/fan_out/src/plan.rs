//! What the viewers are to do and what they saw: JSON between the harness and the viewers' process.

use serde::{Deserialize, Serialize};

/// How media travels to the viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    /// Interleaved on the RTSP connection.
    Tcp,
    /// Unicast UDP.
    Udp,
    /// SRTP to a WebRTC viewer.
    WebRtc,
}

/// How a viewer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Leave {
    /// With TEARDOWN.
    Teardown,
    /// The connection is closed without a word.
    Vanish,
}

/// One viewer. Times are milliseconds from [`Plan::start_us`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Viewer {
    /// What it is in the plan, for example `resident`.
    pub group: String,
    /// Connects then.
    pub start_ms: u64,
    /// How media travels.
    pub transport: Transport,
    /// Goes then; at the plan's end where absent.
    pub leave: Option<(u64, Leave)>,
    /// Stops reading at the first and reads on at the second time.
    pub stall: Option<(u64, u64)>,
    /// Size of the TCP receive buffer in bytes, where not the system's.
    pub receive_buffer: Option<usize>,
    /// Goes as soon as it has its first whole key picture.
    pub leave_at_key: bool,
    /// Its latency counts. Not where old pictures are what is asked for: at a join, after a stall.
    pub timed: bool,
}

impl Viewer {
    /// A TCP viewer that stays to the end.
    pub fn new(group: &str, start_ms: u64) -> Self {
        Self {
            group: group.to_owned(),
            start_ms,
            transport: Transport::Tcp,
            leave: None,
            stall: None,
            receive_buffer: None,
            leave_at_key: false,
            timed: true,
        }
    }
}

/// All viewers of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Address and port of the server, IPv4; of its HTTP side where viewers are WebRTC.
    pub server: String,
    /// The stream's path with its slash.
    pub path: String,
    /// Unix microseconds of the plan's beginning.
    pub start_us: u64,
    /// Latency is measured between these two.
    pub window_ms: (u64, u64),
    /// Everybody goes then.
    pub end_ms: u64,
    /// A picture is called live when it arrives at most this long after its stamp.
    pub live_ms: u64,
    /// Everyone to be played.
    pub viewers: Vec<Viewer>,
}

/// What one viewer received. Pictures are counted by the stamp's numbers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    /// RTP packets and their bytes.
    pub packets: u64,
    /// Bytes of those packets.
    pub bytes: u64,
    /// Packets missing in the sequence numbers.
    pub lost_packets: u64,
    /// Pictures, and how many of them had a stamp or missed a packet.
    pub pictures: u64,
    /// Pictures with a stamp.
    pub stamped: u64,
    /// Pictures that missed a packet, the first one of a join in mid-picture apart.
    pub damaged: u64,
    /// Number of the first picture.
    pub first: Option<u32>,
    /// Number of the last picture.
    pub last: Option<u32>,
    /// Pictures missing between first and last.
    pub missing: u64,
    /// Pictures whose number did not rise.
    pub repeated: u64,
    /// From TCP connect to the first RTP packet.
    pub first_packet_ms: Option<f64>,
    /// From TCP connect to the last packet of the first whole key picture.
    pub first_key_ms: Option<f64>,
    /// How long after its stamp that key picture was complete.
    pub first_key_age_ms: Option<f64>,
    /// Longest time between two pictures.
    pub freeze_ms: f64,
    /// Jumps after which the viewer went on with something else than a key picture.
    pub undecodable_jumps: u64,
}

/// One viewer's end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// As planned.
    pub group: String,
    /// As planned.
    pub transport: Transport,
    /// What it received.
    pub seen: Seen,
    /// Why it ended before its time.
    pub error: Option<String>,
    /// From reading on after a stall to the first picture that is live and can be decoded.
    pub live_again_ms: Option<f64>,
    /// Pictures left out by the jump after a stall.
    pub skipped: u64,
}

/// Quantiles of what was measured, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Quantiles {
    /// Number of samples.
    pub n: usize,
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}

impl Quantiles {
    /// Of any samples; all zero where there are none.
    pub fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |p: f64| {
            let rank = (samples.len() as f64 * p).ceil() as usize;
            samples.get(rank.max(1) - 1).copied().unwrap_or(0.0)
        };
        Self { n: samples.len(), p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1.0) }
    }
}

/// What all viewers saw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// From the camera's stamp to the picture's last packet being read, within the window, of the viewers that are timed.
    pub latency_ms: Quantiles,
    /// One for each viewer of the plan, in its order.
    pub viewers: Vec<Outcome>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let q = Quantiles::of((1..=200).rev().map(f64::from).collect());
        assert_eq!((q.n, q.p50, q.p95, q.p99, q.max), (200, 100.0, 190.0, 198.0, 200.0));
        assert_eq!(Quantiles::of(vec![3.0]).p99, 3.0);
        assert_eq!(Quantiles::of(Vec::new()).p50, 0.0);
    }
}
