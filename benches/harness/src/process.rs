//! What a process and its descendants use, from /proc.

use std::fs;

/// One look at a process tree.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// CPU time of all threads that exist now, in ns: user, system, and the softirqs that ran in their time.
    pub cpu_ns: u64,
    /// Resident memory in bytes.
    pub rss: u64,
    /// Threads.
    pub threads: u64,
    /// Open file descriptors.
    pub fds: u64,
    /// Context switches of all threads that exist now.
    pub switches: u64,
}

/// Adds up a process and its descendants. What cannot be read counts as nothing.
pub fn sample(root: u32) -> Sample {
    let mut sample = Sample::default();
    let mut todo = vec![root];
    while let Some(pid) = todo.pop() {
        sample.rss += rss(pid);
        sample.fds += fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |d| d.count() as u64);
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let schedstat = read("schedstat");
            // time on the CPU in ns, time waiting, timeslices: kernel Documentation/scheduler/sched-stats.rst
            sample.cpu_ns += schedstat.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
            sample.threads += 1;
            sample.switches += read("status")
                .lines()
                .filter(|l| l.contains("ctxt_switches"))
                .filter_map(|l| l.split_whitespace().last()?.parse::<u64>().ok())
                .sum::<u64>();
            todo.extend(read("children").split_whitespace().filter_map(|n| n.parse::<u32>().ok()));
        }
    }
    sample
}

/// Resident memory of one process in bytes; 0 where there is none.
pub fn rss(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// CPU time the whole machine has used since boot, time stolen by other guests included, in ns.
pub fn machine_busy_ns() -> u64 {
    const TICK_NS: u64 = 10_000_000; // USER_HZ is 100
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> =
        stat.lines().next().unwrap_or("").split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    let idle: u64 = fields.iter().skip(3).take(2).sum();
    (fields.iter().take(8).sum::<u64>() - idle) * TICK_NS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows() {
        let pid = std::process::id();
        let (before, busy) = (sample(pid), machine_busy_ns());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let mut x = 1u64;
        while sample(pid).cpu_ns - before.cpu_ns < 50_000_000 && std::time::Instant::now() < deadline {
            for i in 0..1_000_000u64 {
                x = std::hint::black_box(x.wrapping_mul(i | 1));
            }
        }
        let after = sample(pid);
        assert!(after.cpu_ns - before.cpu_ns >= 50_000_000, "{before:?} {after:?}");
        assert!(machine_busy_ns() > busy);
        assert!(after.rss > 1 << 20 && after.threads >= 1 && after.fds >= 3, "{after:?}");
    }
}
