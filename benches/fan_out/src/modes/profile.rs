//! `fan-out profile`: where a server's CPU time goes under load, by `perf`.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::plan::Viewer;
use crate::run::Load;
use crate::server::{Kind, Running};

use super::Context;

/// Records `seconds` of one server with `n` TCP viewers and prints the functions that take most.
///
/// # Errors
/// Something cannot be started, or `perf` may not record.
pub fn run(context: &Context, kind: Kind, n: usize, seconds: u64) -> Result<()> {
    let running = Running::start(kind, &context.env)?;
    std::thread::sleep(Duration::from_secs(3));
    let viewers = (0..n).map(|i| Viewer::new("viewer", i as u64 * 5_000 / n as u64)).collect();
    let end = 8_000 + seconds * 1000 + 2_000;
    let load = Load::start(&running, &context.env, viewers, (8_000, end), end)?;
    load.sleep_until(8_000);
    let data = context.env.folder.join(format!("{kind:?}-{n}.perf").to_lowercase());
    // 997 Hz is no multiple of the picture rate; DWARF because release builds keep no frame pointers
    let status = Command::new("perf")
        .args(["record", "-q", "-F", "997", "--call-graph", "dwarf,16384", "-p", &running.pid().to_string(), "-o"])
        .arg(&data)
        .args(["--", "sleep", &seconds.to_string()])
        .status()
        .context("cannot start perf (package linux-perf)")?;
    ensure!(status.success(), "perf record failed; see kernel.perf_event_paranoid");
    drop(load);
    drop(running);
    let report = |more: &[&str]| {
        let mut command = Command::new("perf");
        command.args(["report", "--stdio", "-g", "none"]).args(more).arg("-i");
        command.arg(&data).stderr(std::process::Stdio::null()).status()
    };
    println!("where time is spent:");
    report(&["--no-children", "--percent-limit", "0.7", "--sort", "symbol"])?;
    println!("with what it calls (second column: itself):");
    report(&["--children", "--percent-limit", "3", "--sort", "symbol"])?;
    println!("more: perf report --children -i {}", data.display());
    Ok(())
}
