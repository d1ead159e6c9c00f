//! Mini doorbells' connections, cut anywhere and at any time, and the visits that come of them.

use fanlight::ingest::mini_doorbell::BellId;
use fanlight::ingest::mini_doorbell::upload::{Patience, Receiver, Step};
use fanlight::ingest::mini_doorbell::visits::{REPEAT, TORN, Verdict, Visits};
use fanlight::ingest::mini_doorbell::wire::{Carrier, HEADER, Header};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Inputs of one run.
const MAX_STEPS: usize = 300;

/// Plays the input, which has two connections at a time:
///
/// | bits of a step's first byte | meaning |
/// |------|---------|
/// | 0    | which connection |
/// | 1, 2 | 0: so many bytes of the input come, 1: a header, 2: so many bytes of a picture, 3: it ends |
/// | 3    | time passes first: as many 100 ms as the next byte says |
/// | 4..8 | how many, or which bell |
pub fn check(data: &[u8]) {
    let mut data = data;
    let start = Instant::now();
    let (mut now, mut visits) = (start, Visits::default());
    let mut connections = [Connection::new(now), Connection::new(now)];
    let mut told: HashMap<BellId, Vec<(Instant, Vec<u8>)>> = HashMap::new();
    for _ in 0..MAX_STEPS {
        let Some((&step, rest)) = data.split_first() else { break };
        data = rest;
        if step & 8 != 0 {
            now += Duration::from_millis(100) * take(&mut data, 1).first().copied().unwrap_or(0).into();
            for connection in &mut connections {
                connection.time(now, &mut visits, &mut told);
            }
            for visit in visits.due(now) {
                assert!(!visit.whole && !visit.late);
                tell(&mut told, visit.id(), &visit.body, now);
            }
            assert!(visits.next_due().is_none_or(|due| due > now && due <= now + TORN));
        }
        let Some(connection) = connections.get_mut(usize::from(step & 1)) else { continue };
        let much = usize::from(step >> 4);
        match step >> 1 & 3 {
            0 => {
                let bytes = take(&mut data, much).to_vec();
                connection.feed(&bytes, now, &mut visits, &mut told);
            }
            1 => {
                let bytes = take(&mut data, 3);
                let [function, high, low] = <[u8; 3]>::try_from(bytes).unwrap_or([1, 0, 8]);
                let id = BellId([0, 0xff, 2, 0, 0, 0, much as u8 & 3, 0]);
                let extra = u16::from_be_bytes([high & 0x1f, low]);
                let header = Header::new(id, function, much as u16, extra).write(Carrier::Tcp);
                connection.feed(&header, now, &mut visits, &mut told);
            }
            2 => {
                let byte = take(&mut data, 1).first().copied().unwrap_or(0);
                connection.feed(&vec![byte; much * much * 8], now, &mut visits, &mut told);
            }
            _ => {
                let old = std::mem::replace(connection, Connection::new(now));
                if let Some(torn) = old.receiver.ended() {
                    assert!(!torn.whole && torn.body.len() < usize::from(torn.header.extra) && !old.took);
                    judge(torn, now, &mut visits, &mut told);
                }
            }
        }
    }
}

struct Connection {
    receiver: Receiver,
    took: bool,
    over: bool,
    fed: usize,
}

type Told = HashMap<BellId, Vec<(Instant, Vec<u8>)>>;

impl Connection {
    fn new(now: Instant) -> Self {
        Self { receiver: Receiver::new(Patience::default(), now), took: false, over: false, fed: 0 }
    }

    fn feed(&mut self, bytes: &[u8], now: Instant, visits: &mut Visits, told: &mut Told) {
        if self.over || bytes.is_empty() {
            return;
        }
        self.fed += bytes.len();
        let step = self.receiver.received(bytes, now);
        self.after(step, now, visits, told);
    }

    fn time(&mut self, now: Instant, visits: &mut Visits, told: &mut Told) {
        if !self.over {
            let step = self.receiver.timeout(now);
            self.after(step, now, visits, told);
        }
    }

    fn after(&mut self, step: Step, now: Instant, visits: &mut Visits, told: &mut Told) {
        assert!(self.receiver.held() <= (1 << 16) + HEADER);
        match step {
            Step::Read(until) => {
                assert_eq!(until, self.receiver.deadline());
                assert!(until <= now + Patience::default().whole);
            }
            Step::Took(upload) => {
                assert!(!self.took, "one picture a connection");
                assert!(upload.whole && self.fed >= HEADER + upload.body.len());
                assert!(self.receiver.is_done());
                self.took = true;
                judge(upload, now, visits, told);
            }
            Step::Close => {
                assert!(self.receiver.is_done(), "politely closed in the middle, which wedges a unit");
                self.over = true;
            }
            Step::Reset(_) => self.over = true,
        }
    }
}

fn judge(upload: fanlight::ingest::mini_doorbell::upload::Upload, now: Instant, visits: &mut Visits, told: &mut Told) {
    let whole = upload.whole;
    match visits.took(upload, Ipv4Addr::LOCALHOST.into(), now) {
        Verdict::New(visit) => {
            assert!(visit.whole && whole);
            if !visit.late {
                tell(told, visit.id(), &visit.body, now);
            }
        }
        Verdict::Waits(until) => assert!(!whole && until == now + TORN),
        Verdict::Repeat | Verdict::Flood => {}
    }
    assert!(visits.held() <= 64 << 16);
}

/// The same picture of the same bell is told once within the time of repeats.
fn tell(told: &mut Told, id: BellId, body: &[u8], now: Instant) {
    let before = told.entry(id).or_default();
    before.retain(|(at, _)| now.saturating_duration_since(*at) <= REPEAT);
    assert!(before.iter().all(|(_, other)| other != body), "the same picture twice");
    before.push((now, body.to_vec()));
}

fn take<'a>(data: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = data.split_at(count.min(data.len()));
    *data = rest;
    taken
}
