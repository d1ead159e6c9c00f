//! `fan-out stall`: viewers that stop reading for a while and go on, among others that must not notice.

use std::time::Duration;

use anyhow::Result;

use crate::plan::{Outcome, Viewer};
use crate::run::Load;
use crate::server::{Kind, Running};
use crate::table::{Verdict, markdown};

use super::Context;

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// All viewers.
    pub viewers: usize,
    /// How many of them stall, a run for each number.
    pub stalled: Vec<usize>,
    /// For how long, in seconds.
    pub seconds: u64,
    /// Receive buffer of the stalled ones in bytes.
    pub receive_buffer: usize,
}

/// Runs each server with each number of stalled viewers. True if every target was met.
///
/// # Errors
/// A server cannot be started or the result cannot be written.
pub fn run(context: &Context, servers: &[Kind], options: &Options) -> Result<bool> {
    let gop_ms = u64::from(context.env.gop_seconds) * 1000;
    let (from, to) = (5_000, 5_000 + options.seconds * 1000);
    let end = to + 3 * gop_ms + 2_000;
    let mut lines = Vec::new();
    let mut verdicts = Vec::new();
    let mut data = Vec::new();
    for &stalled in &options.stalled {
        for &kind in servers {
            let mut running = Running::start(kind, &context.env)?;
            std::thread::sleep(Duration::from_secs(3));
            let viewers = (0..options.viewers).map(|i| {
                let mut viewer = Viewer::new(if i < stalled { "stalled" } else { "healthy" }, i as u64 * 20);
                if i < stalled {
                    viewer.stall = Some((from, to));
                    viewer.timed = false;
                    viewer.receive_buffer = Some(options.receive_buffer);
                }
                viewer
            });
            let report = Load::start(&running, &context.env, viewers.collect(), (from, to), end)?.report()?;
            if let Some(log) = running.crashed() {
                anyhow::bail!("{} ended by itself: {log}", kind.name());
            }
            let of = |group: &'static str| report.viewers.iter().filter(move |v| v.group == group);
            // everybody's last picture must be the last one there was, or nearly
            let newest = report.viewers.iter().filter_map(|v| v.seen.last).max().unwrap_or(0);
            let at_end = |v: &Outcome| v.seen.last.is_some_and(|last| last + 5 >= newest);
            let harmed = of("healthy")
                .filter(|v| v.error.is_some() || v.seen.missing + v.seen.damaged + v.seen.repeated > 0 || !at_end(v));
            let harmed = harmed.count();
            let freeze = of("healthy").map(|v| v.seen.freeze_ms).fold(0.0, f64::max);
            let framing = of("stalled").filter(|v| v.error.as_deref() == Some("framing lost")).count();
            let closed = of("stalled").filter(|v| v.error.is_some()).count() - framing;
            let slowest = of("stalled").map(|v| v.live_again_ms.unwrap_or(f64::INFINITY)).fold(0.0, f64::max);
            let torn: u64 = of("stalled").map(|v| v.seen.damaged + v.seen.undecodable_jumps).sum();
            let playing = of("stalled").filter(|v| v.error.is_none() && at_end(v)).count();
            let skipped = of("stalled").map(|v| v.skipped).max().unwrap_or(0);
            lines.push(vec![
                kind.name().to_owned(),
                stalled.to_string(),
                harmed.to_string(),
                format!("{freeze:.0}"),
                format!("{:.2} / {:.2}", report.latency_ms.p50, report.latency_ms.p99),
                playing.to_string(),
                framing.to_string(),
                closed.to_string(),
                format!("{slowest:.0}"),
                skipped.to_string(),
                torn.to_string(),
            ]);
            if kind == Kind::Fanlight {
                verdicts.push(Verdict::new(
                    harmed == 0,
                    format!(
                        "{stalled} of {} stop reading for {} s: the others lose nothing",
                        options.viewers, options.seconds
                    ),
                    format!("{harmed} harmed, longest freeze {freeze:.0} ms"),
                ));
                verdicts.push(Verdict::new(
                    slowest <= gop_ms as f64 && framing + closed == 0 && torn == 0 && playing == stalled,
                    format!("live again within one GOP ({gop_ms} ms), framing intact, from a key picture"),
                    format!("after {slowest:.0} ms, {playing} of {stalled} playing, {skipped} pictures left out, {torn} torn"),
                ));
            }
            data.push(serde_json::json!({ "server": kind, "stalled": stalled, "report": report }));
        }
    }
    let head = [
        "server",
        "stalled",
        "others harmed",
        "their longest freeze ms",
        "their latency p50 / p99 ms",
        "stalled ones playing at the end",
        "framing lost",
        "closed",
        "live again after ms",
        "pictures left out",
        "torn",
    ];
    context.finish("stall", "Viewers that stop reading", &markdown(&head, &lines), &verdicts, &data)
}
