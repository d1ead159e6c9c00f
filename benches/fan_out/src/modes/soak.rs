//! `fan-out soak`: viewers join and leave every second for minutes; memory, threads and descriptors must not grow.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::plan::{Leave, Transport, Viewer};
use crate::process;
use crate::run::Load;
use crate::server::{Kind, Running};
use crate::table::{Verdict, markdown, median};

use super::Context;

const RESIDENTS: usize = 50;
/// Every fifth resident and every second guest plays over UDP.
const UDP_RESIDENTS: usize = 10;

/// Who joins in every second: at this millisecond of it, stays for so many seconds and a bit, goes in this way. Each goes
/// between .50 and .70 of a second, so that at .98, when the process is looked at, always the same number is there.
const GUESTS: [(u64, u64, Transport, Leave); 6] = [
    (50, 1_500, Transport::Tcp, Leave::Teardown),
    (100, 2_450, Transport::Udp, Leave::Teardown),
    (150, 3_450, Transport::Tcp, Leave::Vanish),
    (200, 5_450, Transport::Udp, Leave::Vanish),
    (250, 1_400, Transport::Tcp, Leave::Vanish),
    (300, 350, Transport::Tcp, Leave::Teardown),
];
const LOOK_AT_MS: u64 = 980;

#[derive(Clone, Debug, Serialize)]
struct Look {
    second: u64,
    rss_mb: f64,
    threads: u64,
    fds: u64,
    cpu_ms_per_s: f64,
}

/// Runs one server for `minutes`. True if every target was met.
///
/// # Errors
/// The server cannot be started, crashes, or the result cannot be written.
pub fn run(context: &Context, kind: Kind, minutes: f64, udp: bool) -> Result<bool> {
    let seconds = (minutes * 60.0) as u64;
    ensure!(seconds >= 50, "a soak takes at least 50 s");
    let every = if seconds < 300 { 5 } else { 10 };
    let transport = |wanted| if udp { wanted } else { Transport::Tcp };
    let mut viewers: Vec<Viewer> = (0..RESIDENTS)
        .map(|i| {
            let mut viewer = Viewer::new("resident", 10 * i as u64);
            if i < UDP_RESIDENTS {
                viewer.transport = transport(Transport::Udp);
            }
            viewer
        })
        .collect();
    for second in 2..seconds {
        for (at, stay, via, how) in GUESTS {
            let start = second * 1000 + at;
            let mut viewer = Viewer::new("guest", start);
            viewer.transport = transport(via);
            viewer.timed = false;
            viewer.leave = Some((start + stay, how));
            viewers.push(viewer);
        }
    }
    let guests = viewers.len() - RESIDENTS;
    let mut running = Running::start(kind, &context.env)?;
    std::thread::sleep(Duration::from_secs(3));
    let end = seconds * 1000 + 100;
    let load = Load::start(&running, &context.env, viewers, (10_000, end), end)?;
    let mut csv = String::from("second,rss_mb,threads,fds,cpu_ms_per_s\n");
    let mut looks: Vec<Look> = Vec::new();
    let mut cpu_ns = 0;
    for second in (every - 1..seconds).step_by(every as usize) {
        load.sleep_until(second * 1000 + LOOK_AT_MS);
        let sample = process::sample(running.pid());
        let look = Look {
            second: second + 1,
            rss_mb: sample.rss as f64 / 1e6,
            threads: sample.threads,
            fds: sample.fds,
            cpu_ms_per_s: sample.cpu_ns.saturating_sub(cpu_ns) as f64 / 1e6 / every as f64,
        };
        cpu_ns = sample.cpu_ns;
        let Look { second, rss_mb, threads, fds, cpu_ms_per_s } = &look;
        writeln!(csv, "{second},{rss_mb:.2},{threads},{fds},{cpu_ms_per_s:.1}")?;
        eprintln!("{second} s: {rss_mb:.2} MB, {threads} threads, {fds} descriptors, {cpu_ms_per_s:.1} ms/s");
        looks.push(look);
        if let Some(log) = running.crashed() {
            anyhow::bail!("{} ended by itself: {log}", kind.name());
        }
    }
    let report = load.report()?;
    let of = |group: &'static str| report.viewers.iter().filter(move |v| v.group == group);
    let harmed = |via: Transport| {
        let all = of("resident").filter(move |v| v.transport == via);
        all.filter(|v| v.error.is_some() || v.seen.missing + v.seen.damaged > 0).count()
    };
    let (harmed_tcp, harmed_udp) = (harmed(Transport::Tcp), harmed(Transport::Udp));
    let mut errors: Vec<String> = of("guest").filter_map(|v| v.error.clone()).collect();
    let turned_away = errors.len();
    errors.sort();
    errors.dedup();
    errors.truncate(5);
    let key = crate::plan::Quantiles::of(of("guest").filter_map(|v| v.seen.first_key_ms).collect());

    // "minute m" = the looks of the minute that ends then
    let (early, late) = (seconds * 4 / 10, seconds);
    let minute = 60.min(seconds / 5);
    let around = |end: u64, f: fn(&Look) -> f64| {
        median(looks.iter().filter(|l| l.second <= end && l.second + minute > end).map(f)).unwrap_or(f64::NAN)
    };
    let growth = around(late, |l| l.rss_mb) - around(early, |l| l.rss_mb);
    let same = |f: fn(&Look) -> f64| (around(early, f), around(late, f));
    let (threads, fds) = (same(|l| l.threads as f64), same(|l| l.fds as f64));
    let moment = |s: u64| if s.is_multiple_of(60) { format!("minute {}", s / 60) } else { format!("{s} s") };
    let verdicts = [
        Verdict::new(
            growth <= 2.0,
            format!("RSS at {} at most 2 MB over {}", moment(late), moment(early)),
            format!("{:.2} MB - {:.2} MB = {growth:.2} MB", around(late, |l| l.rss_mb), around(early, |l| l.rss_mb)),
        ),
        Verdict::new(threads.0 == threads.1, "threads equal", format!("{} and {}", threads.0, threads.1)),
        Verdict::new(fds.0 == fds.1, "file descriptors equal", format!("{} and {}", fds.0, fds.1)),
        Verdict::new(harmed_tcp == 0, "no resident over TCP loses a picture", format!("{harmed_tcp} did")),
        Verdict::new(harmed_udp == 0, "no resident over UDP loses a picture", format!("{harmed_udp} did")),
        Verdict::new(
            turned_away == 0,
            "every guest has a picture",
            format!("{turned_away} of {guests} had none {errors:?}"),
        ),
    ];
    let rows: Vec<Vec<String>> = looks
        .iter()
        .filter(|l| l.second.is_multiple_of(if seconds < 300 { 10 } else { 60 }))
        .map(|l| {
            let Look { second, rss_mb, threads, fds, cpu_ms_per_s } = l;
            vec![
                second.to_string(),
                format!("{rss_mb:.2}"),
                threads.to_string(),
                fds.to_string(),
                format!("{cpu_ms_per_s:.0}"),
            ]
        })
        .collect();
    let body = format!(
        "{}: {RESIDENTS} residents ({} over UDP), {} guests join and leave every second, {guests} in all. The guests' first whole key \
         picture after {:.0} ms (median), {:.0} ms (p99). The residents' latency p50 / p99 {:.2} / {:.2} ms. Sessions at the camera: {}.\n\n{}",
        kind.name(),
        if udp { UDP_RESIDENTS } else { 0 },
        GUESTS.len(),
        key.p50,
        key.p99,
        report.latency_ms.p50,
        report.latency_ms.p99,
        running.camera_sessions().1,
        markdown(&["second", "RSS MB", "threads", "descriptors", "CPU ms/s"], &rows),
    );
    let met = context.finish("soak", "Soak", &body, &verdicts, &looks)?;
    let day = context.machine.date.split(' ').next().unwrap_or("");
    std::fs::write(context.results.join(format!("soak-{day}-{}.csv", context.machine.commit)), csv)?;
    Ok(met)
}
