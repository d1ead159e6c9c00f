//! Child processes: started fresh for every row, ended with it, never left behind.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Writes one line of JSON to standard output, for [`Process::line`] of the parent.
pub fn say(value: &Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{value}").and_then(|()| out.flush()); // a parent that is gone ends us by signal
}

/// Tells the parent where this child listens.
///
/// # Errors
/// The address cannot be bound.
pub fn listen() -> Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    say(&serde_json::json!({ "listening": listener.local_addr()?.to_string() }));
    Ok(listener)
}

/// A program of this package: it lies beside the running one.
///
/// # Errors
/// The running program's own path is unknown.
pub fn sibling(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("own path")?;
    Ok(own.with_file_name(name))
}

/// A running child. Dropped = ended.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with its standard error in `log`. It gets SIGTERM when the harness dies.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(program: &Path, args: &[&str], log: &Path) -> Result<Self> {
        if !program.exists() {
            bail!("{} is not there: build it first", program.display());
        }
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM"])
            .arg(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?)
            .spawn()
            .context("cannot start setpriv (package util-linux)")?;
        let out = child.stdout.take().context("no standard output")?;
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines, log: log.to_owned() })
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives it `text` and closes its standard input.
    ///
    /// # Errors
    /// It does not read.
    pub fn feed(&mut self, text: &str) -> Result<()> {
        self.child.stdin.take().context("fed twice")?.write_all(text.as_bytes()).context("the child does not read")
    }

    /// Gives it a line; its standard input stays open.
    ///
    /// # Errors
    /// It does not read, or was [fed](Self::feed).
    pub fn say(&mut self, line: &str) -> Result<()> {
        let input = self.child.stdin.as_mut().context("its standard input is closed")?;
        writeln!(input, "{line}").and_then(|()| input.flush()).context("the child does not read")
    }

    /// Its next line of JSON.
    ///
    /// # Errors
    /// None came within `limit`; the text has the end of its log.
    pub fn line(&mut self, limit: Duration) -> Result<Value> {
        let line = match self.lines.recv_timeout(limit) {
            Ok(line) => line,
            Err(e) => bail!("no answer from a child ({e}): {}", self.log_tail()),
        };
        serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))
    }

    /// All lines that have come and were not taken.
    pub fn pending_lines(&self) -> Vec<Value> {
        self.lines.try_iter().filter_map(|l| serde_json::from_str(&l).ok()).collect()
    }

    /// Where it listens, from its first line.
    ///
    /// # Errors
    /// As [`Self::line`].
    pub fn address(&mut self) -> Result<SocketAddr> {
        let line = self.line(Duration::from_secs(10))?;
        line["listening"].as_str().context("no address")?.parse().context("bad address")
    }

    /// The last lines of its standard error.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" | ")
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32)
            && !self.ended()
        {
            let _ = kill_process(pid, Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(6);
            while !self.ended() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
