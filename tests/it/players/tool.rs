//! Players as programs: bounded in time, killed when a test ends early.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::Command;

/// Longer than any run takes that is not told how long to record; a player that needs more is stuck.
const LIMIT: Duration = Duration::from_secs(90);

/// What a program left behind.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) log: String,
}

impl Output {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Runs a program to its end.
pub(crate) async fn run<S: AsRef<str>>(program: &str, arguments: &[S]) -> Output {
    run_within(LIMIT, program, arguments).await
}

async fn run_within<S: AsRef<str>>(limit: Duration, program: &str, arguments: &[S]) -> Output {
    let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    let mut command = Command::new(program);
    command.args(&arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = tokio::time::timeout(limit, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{program} {} did not end", arguments.join(" "))).unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    Output { status: output.status, stdout: output.stdout, log }
}

/// Runs a program that has to succeed.
pub(crate) async fn succeed<S: AsRef<str>>(program: &str, arguments: &[S]) -> Output {
    succeed_within(LIMIT, program, arguments).await
}

/// The same for one that takes longer.
pub(crate) async fn succeed_within<S: AsRef<str>>(limit: Duration, program: &str, arguments: &[S]) -> Output {
    let output = run_within(limit, program, arguments).await;
    let shown: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    assert!(output.status.success(), "{program} {}: {}\n{}", shown.join(" "), output.status, output.log);
    output
}

/// `gst-launch-1.0` that has to succeed. Once under load it did not end after its sinks had all they wanted, with nothing
/// in the log to tell why; it gets a second chance, which a stream that stands still does not pass either.
pub(crate) async fn gst_launch<S: AsRef<str>>(arguments: &[S]) -> Output {
    let usual = Duration::from_secs(45);
    match tokio::time::timeout(usual, succeed("gst-launch-1.0", arguments)).await {
        Ok(output) => output,
        Err(_) => {
            println!("gst-launch-1.0 did not end in {usual:?} and is tried again");
            succeed("gst-launch-1.0", arguments).await
        }
    }
}

/// The words of a command line without quotes in it.
pub(crate) fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// ffmpeg with the options of `line`, in which `URL` stands for the address.
pub(crate) async fn ffmpeg(line: &str, url: &str) -> Output {
    let mut arguments = words("-hide_banner -nostdin -nostats");
    arguments.extend(words(line).into_iter().map(|word| if word == "URL" { url.to_owned() } else { word }));
    succeed("ffmpeg", &arguments).await
}

/// What ffprobe says, as JSON.
pub(crate) async fn ffprobe(line: &str, url: &str) -> serde_json::Value {
    let mut arguments = words("-v error -of json");
    arguments.extend(words(line));
    arguments.push(url.to_owned());
    let output = succeed("ffprobe", &arguments).await;
    assert_eq!(output.log, "", "ffprobe {line} {url} complains");
    serde_json::from_slice(&output.stdout).unwrap()
}
