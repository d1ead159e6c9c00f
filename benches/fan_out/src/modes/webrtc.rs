//! `fan-out webrtc`: what a WebRTC viewer costs, beside an RTSP viewer of the same gateway and beside others.

use anyhow::Result;

use crate::run::Row;
use crate::server::Kind;
use crate::table::{Verdict, markdown, median, spread};

use super::Context;
use super::compare::{self, Options, quiet_row};

/// Kilobytes (10^3 bytes) of resident memory that a viewer may take.
const VIEWER_KB: f64 = 400.0;

/// Runs all rows and writes the result. True if every target was met.
///
/// # Errors
/// A server cannot be started or the result cannot be written.
pub fn run(context: &Context, options: &Options) -> Result<bool> {
    let target = options.viewers.iter().copied().max().unwrap_or(1);
    let mut rows: Vec<Row> = Vec::new();
    for repeat in 0..options.repeats {
        for &n in &options.viewers {
            for turn in 0..options.servers.len() {
                let kind = options.servers[(turn + repeat) % options.servers.len()];
                rows.push(quiet_row(kind, n, repeat, context, options)?);
            }
        }
    }
    let body = format!(
        "Memory that one viewer adds, kB (10^3 bytes; resident at {target} less idle, by {target}):\n\n{}\n{}",
        memory(&rows, &options.servers, target),
        compare::tables(&rows, &options.servers, &options.viewers)
    );
    let title = format!("WebRTC viewers, up to {target}");
    context.finish("webrtc", &title, &body, &verdicts(&rows, target), &rows)
}

/// What one viewer adds in kB, for each row.
fn viewer_kb(rows: &[Row], kind: Kind, n: usize) -> impl Iterator<Item = f64> {
    let rows = rows.iter().filter(move |row| row.server == kind && row.n == n);
    rows.map(|row| (row.rss_mb - row.idle_rss_mb) * 1e3 / row.n as f64)
}

fn memory(rows: &[Row], servers: &[Kind], n: usize) -> String {
    let head: Vec<&str> = [""].into_iter().chain(servers.iter().map(|kind| kind.name())).collect();
    let cells = servers.iter().map(|kind| spread(viewer_kb(rows, *kind, n), 0));
    markdown(&head, &[["kB".to_owned()].into_iter().chain(cells).collect()])
}

fn verdicts(rows: &[Row], target: usize) -> Vec<Verdict> {
    let cpu = |kind: Kind| median(rows.iter().filter(|r| r.server == kind && r.n == target).map(|r| r.cpu_ms));
    let mut list = Vec::new();
    let Some(own) = cpu(Kind::FanlightWebrtc) else { return list };
    if let Some(rival) = cpu(Kind::WebrtcCrate) {
        list.push(Verdict::new(
            own <= 0.5 * rival,
            format!("CPU at {target} at most half of the webrtc crate's"),
            format!("{own:.3} / {rival:.3} = {:.2}", own / rival),
        ));
    }
    let mut beside = |kind: Kind| {
        if let Some(other) = cpu(kind) {
            let text = format!("CPU at {target} beside {}: no target", kind.name());
            list.push(Verdict::new(true, text, format!("{own:.3} / {other:.3} = {:.2}", own / other)));
        }
    };
    beside(Kind::Webrtcbin);
    beside(Kind::Fanlight);
    if let Some(kb) = median(viewer_kb(rows, Kind::FanlightWebrtc, target)) {
        let text = format!("memory of a viewer under {VIEWER_KB:.0} kB, at {target}");
        list.push(Verdict::new(kb < VIEWER_KB, text, format!("{kb:.0} kB")));
    }
    let rows = || rows.iter().filter(|r| r.server == Kind::FanlightWebrtc);
    let (failed, lost) = (rows().map(|r| r.failed).sum::<usize>(), rows().map(|r| r.lost_pictures).sum::<u64>());
    let text = "no WebRTC viewer fails, no picture is lost, in any row";
    list.push(Verdict::new(failed == 0 && lost == 0, text, format!("{failed} failed, {lost} lost")));
    list
}
