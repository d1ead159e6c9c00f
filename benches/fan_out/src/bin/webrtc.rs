//! `fan-out-webrtc`: plays the plan on standard input with WebRTC viewers. A program of its own, so that the others are
//! not made larger by it.
use std::io::Read;

fn main() -> anyhow::Result<()> {
    let mut plan = String::new();
    std::io::stdin().read_to_string(&mut plan)?;
    fan_out::child::say(&serde_json::to_value(fan_out::webrtc::viewers::run(serde_json::from_str(&plan)?)?)?);
    Ok(())
}
