//! Players as programs: bounded in time, killed when a test ends early.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};
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

/// `gst-launch-1.0` until its sinks, `fakesink silent=false` named as in `wanted`, have had so many buffers each. Then it
/// is killed: rtspsrc's own goodbye fails now and then on a busy machine ("Could not send message. (Received end-of-file)"
/// while the connection is open and its TEARDOWN arrives), and it may not come to its end at all.
pub(crate) async fn gst_launch<S: AsRef<str>>(arguments: &[S], wanted: &[(&str, usize)]) {
    let arguments: Vec<&str> = ["-v"].into_iter().chain(arguments.iter().map(AsRef::as_ref)).collect();
    let mut command = Command::new("gst-launch-1.0");
    command.args(&arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let (mut missing, mut last) = (wanted.to_vec(), String::new());
    let plays = async {
        while missing.iter().any(|(_, left)| *left > 0) {
            tokio::select! {
                line = lines.next_line() => {
                    last = line.unwrap().expect("it plays until it is killed");
                    for (sink, left) in &mut missing {
                        // "/GstPipeline:pipeline0/GstFakeSink:NAME: last-message = chain   ******* (NAME:sink) (…"
                        if last.contains("last-message = chain") && last.contains(&format!("({sink}:sink)")) {
                            *left = left.saturating_sub(1);
                        }
                    }
                }
                Ok(Some(line)) = log.next_line() => assert!(!line.contains("ERROR"), "{}: {line}", arguments.join(" ")),
            }
        }
    };
    let in_time = tokio::time::timeout(LIMIT, plays).await.is_ok();
    assert!(in_time, "{}: {missing:?} did not come; the last line was {last}", arguments.join(" "));
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
