//! `fan-out join`: how long a late viewer waits for its first whole key picture.

use std::time::Duration;

use anyhow::Result;

use crate::plan::{Quantiles, Viewer};
use crate::run::Load;
use crate::server::{Kind, Running};
use crate::table::{Verdict, markdown};

use super::Context;

/// Between two joins there is at least this, so that they do not meet.
const APART_MS: u64 = 300;

/// Joins each server `joins` times at random phases of the GOP, beside one viewer that stays. True if the target was met.
///
/// # Errors
/// A server cannot be started or the result cannot be written.
pub fn run(context: &Context, servers: &[Kind], joins: usize) -> Result<bool> {
    let gop_ms = u64::from(context.env.gop_seconds) * 1000;
    let mut lines = Vec::new();
    let mut verdicts = Vec::new();
    let mut data = Vec::new();
    for &kind in servers {
        let running = Running::start(kind, &context.env)?;
        std::thread::sleep(Duration::from_secs(1));
        let mut viewers = vec![Viewer::new("resident", 0)];
        let mut at = 2 * gop_ms; // the cache is full by now
        for _ in 0..joins {
            // a whole GOP of chance: every phase is equally likely, whatever the one before was
            at += APART_MS + fastrand::u64(0..gop_ms);
            let mut viewer = Viewer::new("join", at);
            viewer.leave_at_key = true;
            viewer.timed = false;
            viewers.push(viewer);
        }
        let report = Load::start(&running, &context.env, viewers, (0, 0), at + gop_ms + 2_000)?.report()?;
        let all = || report.viewers.iter().filter(|v| v.group == "join");
        let failed = all().filter(|v| v.error.is_some() || v.seen.first_key_ms.is_none()).count();
        let key = Quantiles::of(all().filter_map(|v| v.seen.first_key_ms).collect());
        let packet = Quantiles::of(all().filter_map(|v| v.seen.first_packet_ms).collect());
        let age = Quantiles::of(all().filter_map(|v| v.seen.first_key_age_ms).collect());
        lines.push(vec![
            kind.name().to_owned(),
            key.n.to_string(),
            failed.to_string(),
            format!("{:.1}", packet.p50),
            format!("{:.1}", key.p50),
            format!("{:.1}", key.p95),
            format!("{:.1}", key.max),
            format!("{:.0}", age.p50),
        ]);
        if kind == Kind::Fanlight {
            verdicts.push(Verdict::new(
                key.p50 <= 50.0 && failed == 0,
                format!("first whole key picture within 50 ms of TCP connect, median of {joins} joins"),
                format!("{:.1} ms, {failed} failed", key.p50),
            ));
        }
        data.push(serde_json::json!({ "server": kind, "first_key_ms": key, "first_packet_ms": packet, "viewers": report.viewers }));
    }
    let head = [
        "server",
        "joins",
        "failed",
        "first packet p50 ms",
        "first key p50 ms",
        "p95",
        "max",
        "age of that key picture p50 ms",
    ];
    context.finish("join", "First key picture of a late viewer", &markdown(&head, &lines), &verdicts, &data)
}
