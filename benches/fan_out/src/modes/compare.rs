//! `fan-out bench`: CPU, latency and memory for N viewers of each server, interleaved.

use anyhow::Result;

use crate::run::{Row, Timing, row};
use crate::server::Kind;
use crate::table::{Verdict, markdown, median, spread};

use super::Context;

/// What to compare.
#[derive(Clone, Debug)]
pub struct Options {
    /// Programs, in the order of the tables.
    pub servers: Vec<Kind>,
    /// Numbers of viewers; the largest one is the one with targets.
    pub viewers: Vec<usize>,
    /// Repeats of every row.
    pub repeats: usize,
    /// Repeats of the rows with targets.
    pub target_repeats: usize,
    /// Times within a row.
    pub timing: Timing,
    /// Viewers over UDP: the camera and the floor speak TCP only and are left out.
    pub udp: bool,
    /// A row during which the rest of the machine used more cores is repeated.
    pub max_others: f64,
    /// So many times; then the quietest one counts, marked as contended.
    pub retries: usize,
}

/// Runs all rows and writes the result. True if every target was met.
///
/// # Errors
/// A server cannot be started or the result cannot be written.
pub fn run(context: &Context, options: &Options) -> Result<bool> {
    let servers: Vec<Kind> =
        options.servers.iter().copied().filter(|k| !options.udp || matches!(k, Kind::Rival | Kind::Fanlight)).collect();
    let target = options.viewers.iter().copied().max().unwrap_or(1);
    let mut rows: Vec<Row> = Vec::new();
    for repeat in 0..options.repeats.max(options.target_repeats) {
        for &n in &options.viewers {
            if repeat >= if n == target { options.target_repeats } else { options.repeats } {
                continue;
            }
            // the order moves on with every repeat, so that no server always runs after the same one
            for turn in 0..servers.len() {
                let kind = servers[(turn + repeat) % servers.len()];
                rows.push(quiet_row(kind, n, repeat, context, options)?);
            }
        }
    }
    let transport = if options.udp { "UDP" } else { "TCP" };
    let title = format!("Fan-out over {transport}, up to {target} viewers");
    let body = tables(&rows, &servers, &options.viewers);
    let name = if options.udp { "bench-udp" } else { "bench" };
    context.finish(name, &title, &body, &verdicts(&rows, target), &rows)
}

/// Repeats a row until the machine was quiet; the quietest one otherwise.
///
/// # Errors
/// As [`row`].
pub fn quiet_row(kind: Kind, n: usize, repeat: usize, context: &Context, options: &Options) -> Result<Row> {
    let mut best: Option<Row> = None;
    for _ in 0..=options.retries {
        let mut row = row(kind, n, options.udp, repeat, options.timing, &context.env)?;
        row.contended = row.others_cores > options.max_others;
        eprintln!(
            "{:<22} n={n:<3} repeat {repeat}: {:.3} ms/viewer-s, latency {:.2}/{:.2} ms, {:.1} MB, lost {}, failed {} {:?}, \
             cores: viewers {:.2} camera {:.2} others {:.2}{}",
            kind.name(),
            row.cpu_ms,
            row.p50_ms,
            row.p99_ms,
            row.rss_mb,
            row.lost_pictures,
            row.failed,
            row.errors,
            row.viewers_cores,
            row.camera_cores,
            row.others_cores,
            if row.contended { ", again" } else { "" }
        );
        let quiet = !row.contended;
        if best.as_ref().is_none_or(|b| row.others_cores < b.others_cores) {
            best = Some(row);
        }
        if quiet {
            break;
        }
    }
    best.ok_or_else(|| anyhow::anyhow!("no run"))
}

/// All tables of a comparison.
pub fn tables(rows: &[Row], servers: &[Kind], viewers: &[usize]) -> String {
    let of = |kind: Kind, n: usize| rows.iter().filter(move |r| r.server == kind && r.n == n);
    let mut head = vec!["N"];
    head.extend(servers.iter().map(|k| k.name()));
    let by_n = |cell: &dyn Fn(Kind, usize) -> String| {
        let line = |n: &usize| [n.to_string()].into_iter().chain(servers.iter().map(|k| cell(*k, *n))).collect();
        markdown(&head, &viewers.iter().map(line).collect::<Vec<_>>())
    };
    let med = |kind, n, f: fn(&Row) -> f64, digits: usize| {
        median(of(kind, n).map(f)).map_or("-".into(), |v| format!("{v:.digits$}"))
    };
    let pair = |kind, n, a, b, digits| format!("{} / {}", med(kind, n, a, digits), med(kind, n, b, digits));
    let mut text = String::from("Medians; in brackets the least and the most.\n\nCPU, ms per viewer and second:\n\n");
    text += &by_n(&|k, n| spread(of(k, n).map(|r| r.cpu_ms), 3));
    text +=
        "\nLatency p50 / p99, ms, from the camera's stamp to the last packet of the picture read by the viewer:\n\n";
    text += &by_n(&|k, n| pair(k, n, |r| r.p50_ms, |r| r.p99_ms, 2));
    text += "\nResident memory, MB (10^6 bytes):\n\n";
    text += &by_n(&|k, n| med(k, n, |r| r.rss_mb, 1));
    text += "\nFirst whole key picture after TCP connect, ms (median of the viewers), and the longest freeze, ms:\n\n";
    text += &by_n(&|k, n| pair(k, n, |r| r.first_key_ms, |r| r.freeze_ms, 0));
    text += "\nViewers that failed / pictures lost or damaged, worst repeat:\n\n";
    text += &by_n(&|k, n| {
        let most = |f: fn(&Row) -> u64| of(k, n).map(f).max().unwrap_or(0);
        format!("{} / {}", most(|r| r.failed as u64), most(|r| r.lost_pictures))
    });
    text += "\nThreads / context switches a second:\n\n";
    text += &by_n(&|k, n| pair(k, n, |r| r.threads as f64, |r| r.switches, 0));
    text += "\nStart and idle:\n\n";
    let starts: Vec<Vec<String>> = servers
        .iter()
        .map(|kind| {
            let all = || rows.iter().filter(|r| r.server == *kind);
            vec![
                kind.name().to_owned(),
                all().count().to_string(),
                spread(all().map(|r| r.start_ms), 0),
                spread(all().map(|r| r.idle_rss_mb), 1),
                all().map(|r| r.camera_sessions.0).max().unwrap_or(0).to_string(),
                format!("{:.2}", all().map(|r| r.viewers_cores).fold(0.0, f64::max)),
                format!("{:.2}", all().map(|r| r.others_cores).fold(0.0, f64::max)),
                all().filter(|r| r.contended).count().to_string(),
            ]
        })
        .collect();
    let head = [
        "server",
        "rows",
        "listening after ms",
        "idle RSS MB",
        "sessions at the camera, most",
        "load tool's cores, most",
        "others' cores, most",
        "contended rows",
    ];
    text + &markdown(&head, &starts)
}

fn verdicts(rows: &[Row], target: usize) -> Vec<Verdict> {
    let med = |kind: Kind, f: fn(&Row) -> f64| median(rows.iter().filter(|r| r.server == kind && r.n == target).map(f));
    let cpu = |kind| med(kind, |r| r.cpu_ms);
    let p99 = |kind| med(kind, |r| r.p99_ms);
    let mut list = Vec::new();
    if let (Some(floor), Some(camera)) = (cpu(Kind::Floor), cpu(Kind::Camera)) {
        let ratio = floor / camera;
        list.push(Verdict::new(
            (0.85..=1.15).contains(&ratio),
            format!("the floor's CPU at {target} within 15 % of the load tool's own camera"),
            format!("{floor:.3} / {camera:.3} = {ratio:.2}"),
        ));
    }
    if let (Some(own), Some(floor)) = (cpu(Kind::Fanlight), cpu(Kind::Floor)) {
        list.push(Verdict::new(
            own <= 1.25 * floor,
            format!("CPU at {target} at most 1.25 times the floor's"),
            format!("{own:.3} / {floor:.3} = {:.2}", own / floor),
        ));
    }
    if let (Some(own), Some(rival)) = (cpu(Kind::Fanlight), cpu(Kind::Rival)) {
        list.push(Verdict::new(
            own <= 0.5 * rival,
            format!("CPU at {target} at most half of gstreamer-rtsp-server's"),
            format!("{own:.3} / {rival:.3} = {:.2}", own / rival),
        ));
    }
    if let (Some(own), Some(floor)) = (p99(Kind::Fanlight), p99(Kind::Floor)) {
        list.push(Verdict::new(
            own <= floor + 2.0,
            format!("p99 latency at {target} at most the floor's plus 2 ms"),
            format!("{own:.2} - {floor:.2} = {:.2} ms", own - floor),
        ));
    }
    let own = || rows.iter().filter(|r| r.server == Kind::Fanlight);
    if let Some(idle) = median(own().map(|r| r.idle_rss_mb)) {
        list.push(Verdict::new(idle < 15.0, "idle RSS under 15 MB", format!("{idle:.1} MB")));
    }
    if let Some(rss) = med(Kind::Fanlight, |r| r.rss_mb) {
        list.push(Verdict::new(rss < 40.0, format!("RSS at {target} viewers under 40 MB"), format!("{rss:.1} MB")));
        let (failed, lost) = (own().map(|r| r.failed).sum::<usize>(), own().map(|r| r.lost_pictures).sum::<u64>());
        list.push(Verdict::new(
            failed == 0 && lost == 0,
            "no viewer fails, no picture is lost, in any row",
            format!("{failed} failed, {lost} lost"),
        ));
        let most = own().map(|r| r.camera_sessions.1).max().unwrap_or(0);
        list.push(Verdict::new(most == 1, "one session at the camera in every row", format!("{most}")));
    }
    list
}
