//! Renditions and stills: real encoders in real children. One test at a time: they share two cores with everything else.

mod clip;
mod gateway;
mod life;
mod pages;
mod renditions;
mod stills;
mod trouble;

use crate::support::PATIENCE;
use fanlight::bus::{Reader, Stream, Want};
use fanlight::media::AccessUnit;
use fanlight::transcode::{Options, Transcoder};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

/// Held by each test while it encodes.
pub(crate) async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// Children of the program itself, and a short linger.
fn options() -> Options {
    Options { program: program().to_owned(), linger: Duration::from_millis(300), ..Options::default() }
}

/// A reader that begins when there is a picture to begin with.
async fn watch(stream: &Arc<Stream>) -> Reader {
    assert!(timeout(PATIENCE, stream.ready()).await.expect("a first picture"), "the stream ended");
    stream.subscribe(Want::All)
}

async fn take(reader: &mut Reader, count: usize) -> Vec<AccessUnit> {
    let mut units = Vec::new();
    while units.len() < count {
        let next = timeout(PATIENCE, reader.next()).await.expect("another unit in time");
        units.push(next.expect("the stream goes on").1);
    }
    units
}

/// The program under a name of our own, so that other tests' encoders are not taken for ours.
fn program() -> &'static Path {
    static LINK: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, link) = LINK.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join(NAME);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_fanlight"), &link).unwrap();
        (folder, link)
    });
    link
}

const NAME: &str = "tested-encoder";

/// Our child processes by what their `/proc` says: those that run, and those that ended and were not asked how.
fn processes(zombies: bool) -> Vec<i32> {
    let me = std::process::id() as i32;
    let all = procfs::process::all_processes().unwrap().flatten();
    let stats = all.filter_map(|process| process.stat().ok());
    stats
        .filter(|stat| stat.ppid == me && stat.comm == NAME && (stat.state == 'Z') == zombies)
        .map(|stat| stat.pid)
        .collect()
}

fn children() -> Vec<i32> {
    processes(false)
}

fn zombies() -> usize {
    processes(true).len()
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

fn transcoder() -> Transcoder {
    Transcoder::new(options())
}
