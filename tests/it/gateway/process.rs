//! The program as a process: what its log, its signals and its exit code say.

use super::{PATIENCE, camera_at};
use crate::support::until;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// The program itself.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_fanlight");

/// A folder with a configuration, and the program that runs on it.
pub(crate) struct Process {
    pub(crate) folder: TempDir,
    pub(crate) child: Child,
}

/// The file names in the folder.
const CONFIG: &str = "fanlight.yaml";
const PORTS: &str = "ports.json";
const LOG: &str = "log.txt";

impl Process {
    /// Starts `fanlight run` on that configuration; `set_up` may add to the folder and to the command.
    pub(crate) fn spawn(config: &str, set_up: impl FnOnce(&Path, &mut Command)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(CONFIG), config).unwrap();
        let log = std::fs::File::create(folder.path().join(LOG)).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(["run", "--config", CONFIG, "--ports-file", PORTS]).current_dir(folder.path());
        command.env_remove("RUST_LOG").env_remove("STATE_DIRECTORY");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        set_up(folder.path(), &mut command);
        let child = command.spawn().unwrap();
        Self { folder, child }
    }

    /// The same, once it serves.
    pub(crate) async fn start(config: &str, set_up: impl FnOnce(&Path, &mut Command)) -> Self {
        let process = Self::spawn(config, set_up);
        until("the ports file is there", || process.path(PORTS).exists()).await;
        process
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Everything logged so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8(std::fs::read(self.path(LOG)).unwrap()).unwrap()
    }

    /// Lines of the log at that level which contain the text.
    pub(crate) fn lines(&self, level: &str, text: &str) -> Vec<String> {
        let log = self.log();
        let lines = log.lines().filter(|line| line.contains(&format!(" {level} ")) && line.contains(text));
        lines.map(str::to_owned).collect()
    }

    pub(crate) fn address(&self, key: &str) -> SocketAddr {
        let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(self.path(PORTS)).unwrap()).unwrap();
        ports[key][0].as_str().unwrap().parse().unwrap()
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.address("http")
    }

    pub(crate) fn rtsp(&self) -> SocketAddr {
        self.address("rtsp")
    }

    /// Waits until `/v1/cameras/NAME` says what is asked of it.
    pub(crate) async fn camera(
        &self,
        name: &str,
        headers: &str,
        what: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let wait = async {
            loop {
                let camera = camera_at(self.http(), name, headers).await;
                if what(&camera) {
                    return camera;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{name} never gets there:\n{}", self.log()))
    }

    /// Puts another configuration in place and has it read.
    pub(crate) fn reload(&self, config: &str) {
        std::fs::write(self.path(CONFIG), config).unwrap();
        self.signal("HUP");
    }

    /// Sends a signal, as the shell does.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let sent = std::process::Command::new("kill").args(["-s", name, &id]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end.
    pub(crate) async fn ends(&mut self) -> ExitStatus {
        match timeout(PATIENCE, self.child.wait()).await {
            Ok(status) => status.unwrap(),
            Err(_) => panic!("it does not end:\n{}", self.log()),
        }
    }
}
