//! Where and of what a result was taken, and how it is kept.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

/// Machine, versions and commit of a result.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// UTC, to the minute.
    pub date: String,
    /// Short hash; `-dirty` where files differ from it.
    pub commit: String,
    /// Model and number of processors.
    pub cpu: String,
    /// Kernel release.
    pub kernel: String,
    /// Memory in GiB.
    pub memory_gib: u64,
    /// GStreamer's version.
    pub gstreamer: String,
    /// The harness with its arguments.
    pub arguments: String,
}

impl Machine {
    /// Looks around.
    pub fn look(repository: &Path) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let models: Vec<&str> = cpuinfo
            .lines()
            .filter_map(|l| l.strip_prefix("model name").and_then(|l| l.split_once(':')).map(|(_, v)| v.trim()))
            .collect();
        let memory = read("/proc/meminfo");
        let kib = memory.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        let program = std::env::current_exe().ok();
        let program = program.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned())).into_iter();
        let git = |args: &[&str]| output(Command::new("git").arg("-C").arg(repository).args(args));
        let dirty = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|s| !s.is_empty());
        let commit = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".into());
        Self {
            date: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            commit: commit + if dirty { "-dirty" } else { "" },
            cpu: format!("{} x {}", models.len(), models.first().unwrap_or(&"unknown processor")),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory_gib: kib >> 20,
            gstreamer: output(Command::new("gst-launch-1.0").arg("--version"))
                .and_then(|s| s.lines().nth(1).map(str::to_owned))
                .unwrap_or_else(|| "unknown".into()),
            arguments: program.chain(std::env::args().skip(1)).collect::<Vec<_>>().join(" "),
        }
    }

    /// The first lines of a result page.
    pub fn heading(&self, title: &str) -> String {
        let Self { date, commit, cpu, kernel, memory_gib, gstreamer, arguments } = self;
        format!(
            "# {title}\n\nCommit {commit}, {date}. {cpu}, {memory_gib} GiB, Linux {kernel}, {gstreamer}, loopback.\n\
             `{arguments}`\n\n"
        )
    }

    /// Writes `NAME-DATE-COMMIT.md` and `.json` into `folder`, prints the page, and tells where it is.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn keep(&self, folder: &Path, name: &str, page: &str, data: &impl Serialize) -> Result<PathBuf> {
        std::fs::create_dir_all(folder)?;
        let day = self.date.split(' ').next().unwrap_or("");
        let stem = folder.join(format!("{name}-{day}-{}", self.commit));
        let path = PathBuf::from(format!("{}.md", stem.display()));
        std::fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
        let json = serde_json::to_string_pretty(&serde_json::json!({ "machine": self, "data": data }))?;
        std::fs::write(format!("{}.json", stem.display()), json + "\n")?;
        println!("{page}\nkept in {}", path.display());
        Ok(path)
    }
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
