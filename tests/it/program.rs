//! The program as people start it: arguments, exit codes, signals.

use crate::support::{PATIENCE, http};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn fanlight(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanlight"));
    command.current_dir(folder).env_remove("RUST_LOG").env_remove("STATE_DIRECTORY").stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

const PLAIN: &str = "http: { listen: \"127.0.0.1:0\" }\nrtsp: { listen: \"127.0.0.1:0\", udp_ports: 0 }\nwebrtc: { listen: \"127.0.0.1:0\" }\nauth: none\n";

struct Running {
    child: Child,
    http: SocketAddr,
    log: PathBuf,
    /// What it wrote to standard output.
    said: PathBuf,
}

impl Running {
    /// Starts with the file `fanlight.yaml` in that folder, and waits until it serves.
    async fn start(folder: &Path, arguments: &[&str]) -> Self {
        let [ports, log, said] = ["ports.json", "log.txt", "said.txt"].map(|name| folder.join(name));
        let mut command = fanlight(folder);
        command.arg("run").arg("--ports-file").arg(&ports).args(arguments);
        command.stderr(std::fs::File::create(&log).unwrap()).stdout(std::fs::File::create(&said).unwrap());
        let mut child = command.spawn().unwrap();
        let begin = Instant::now();
        let text = loop {
            if let Ok(text) = std::fs::read_to_string(&ports) {
                break text;
            }
            let log = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(child.try_wait().unwrap().is_none(), "it ended:\n{}", log());
            assert!(begin.elapsed() < PATIENCE, "it does not start:\n{}", log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let ports: serde_json::Value = serde_json::from_str(&text).unwrap();
        let http = ports["http"][0].as_str().unwrap().parse().unwrap();
        Self { child, http, log, said }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    async fn logs(&self, words: &str) {
        let begin = Instant::now();
        while !self.log().contains(words) {
            assert!(begin.elapsed() < PATIENCE, "{words:?} is not in\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// Asks it to end; answers its exit code.
    fn end(mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        let begin = Instant::now();
        let code = self.child.wait().unwrap().code();
        assert!(begin.elapsed() < Duration::from_secs(5), "it took too long to end");
        code
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn check_shows_every_mistake_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fanlight.yaml");
    std::fs::write(&file, "rtsp: { listem: 1 }\ncameras:\n  front: { source: gopher://x }\n").unwrap();
    let output = fanlight(folder.path()).arg("check").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    for place in ["fanlight.yaml:1:9: ", "fanlight.yaml:3:"] {
        assert!(text(&output).contains(place), "{}", text(&output));
    }
    let output = fanlight(folder.path()).arg("run").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("fanlight.yaml:1:9: "), "{}", text(&output));

    std::fs::write(&file, PLAIN).unwrap();
    let output = fanlight(folder.path()).args(["check", "--config", "fanlight.yaml"]).output().unwrap();
    assert_eq!((output.status.code(), text(&output).as_str()), (Some(0), "fanlight.yaml: no mistakes, 0 cameras\n"));
}

#[test]
fn wrong_arguments_are_usage_errors() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["fly"][..], &["run", "--wings"], &[]] {
        let output = fanlight(folder.path()).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_taken_port_has_an_exit_code_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = PLAIN.replace("http: { listen: \"127.0.0.1:0\" }", &format!("http: {{ listen: \"{address}\" }}"));
    std::fs::write(folder.path().join("fanlight.yaml"), config).unwrap();
    let output = fanlight(folder.path()).arg("run").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let words = format!("port {} of `http: listen` ({address}) is taken by another program", address.port());
    assert!(text(&output).contains(&words), "{}", text(&output));
}

#[test]
fn a_password_becomes_a_line_for_users() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = fanlight(folder.path())
        .args(["password", "anna", "--viewer"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"correct horse\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let file = folder.path().join("fanlight.yaml");
    std::fs::write(&file, format!("users:\n{}", text(&output))).unwrap();
    let config = fanlight::config::load(&file).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!((config.users[0].name.as_str(), config.users[0].role.name()), ("anna", "viewer"));
    assert!(!text(&output).contains("correct horse"));
}

#[tokio::test]
async fn it_serves_reloads_and_ends_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fanlight.yaml");
    std::fs::write(&file, PLAIN).unwrap();
    let running = Running::start(folder.path(), &[]).await;
    assert_eq!(http::json(running.http, "/readyz").await["ready"], true);

    std::fs::write(&file, format!("{PLAIN}camera: {{}}\n")).unwrap();
    running.signal(rustix::process::Signal::HUP);
    running.logs("nothing was changed").await;
    running.logs("fanlight.yaml:5:1: ").await;
    assert!(http::get(running.http, "/metrics").await.1.contains("\nfanlight_config_ok 0\n"));

    let moved = PLAIN.replace("http: { listen: \"127.0.0.1:0\" }", "http: { listen: \"127.0.0.1:1\" }");
    std::fs::write(
        &file,
        format!("{moved}cameras: {{ front: {{ source: rtsp://127.0.0.1:9/x, on_demand: true }} }}\n"),
    )
    .unwrap();
    running.signal(rustix::process::Signal::HUP);
    running.logs("takes effect after a restart").await;
    running.logs("was read again").await;
    assert_eq!(http::json(running.http, "/v1/cameras").await["cameras"][0]["state"], "idle");
    assert!(http::get(running.http, "/metrics").await.1.contains("\nfanlight_config_ok 1\n"));
    assert_eq!(running.end(), Some(0));
}

#[tokio::test]
async fn a_health_check_needs_no_password() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let config = PLAIN.replace("auth: none\n", "https: { listen: \"127.0.0.1:0\" }\n");
    std::fs::write(folder.path().join("fanlight.yaml"), config).unwrap();
    let running = Running::start(folder.path(), &["--state-directory", state.to_str().unwrap()]).await;
    // A user was made, so there is somebody to ask for.
    assert_eq!(http::get(running.http, "/v1/cameras").await.0, 401);
    let said = std::fs::read_to_string(&running.said).unwrap();
    assert!(said.contains("First start") && said.contains("stream key"), "{said}");
    // All that must survive a restart is in one place.
    assert!(state.join("users.yaml").exists() && state.join("tls/cert.pem").exists());
    assert!(!folder.path().join("data").exists());
    let asked = folder.path().join("asked.yaml");
    std::fs::write(&asked, format!("http: {{ listen: \"{}\" }}\n", running.http)).unwrap();
    let check = |folder: &Path| fanlight(folder).args(["healthcheck", "--config", "asked.yaml"]).output().unwrap();
    let output = check(folder.path());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(running.end(), Some(0));
    assert_ne!(check(folder.path()).status.code(), Some(0));
}

#[tokio::test]
async fn the_log_can_be_json_throughout() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("fanlight.yaml"), PLAIN).unwrap();
    let running = Running::start(folder.path(), &["--log-format", "json"]).await;
    running.logs("started").await;
    for line in running.log().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(line["level"].is_string());
    }
}
