//! What can be measured: one module for each command of `fan-out`.

pub mod browser;
pub mod compare;
pub mod join;
pub mod profile;
pub mod soak;
pub mod stall;
pub mod webrtc;

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use crate::machine::Machine;
use crate::server::Env;
use crate::table::{self, Verdict};

/// What all modes share.
#[derive(Clone, Debug)]
pub struct Context {
    /// The programs and the clip.
    pub env: Env,
    /// Where results go.
    pub results: PathBuf,
    /// Machine and commit.
    pub machine: Machine,
    /// One line on the clip.
    pub clip: String,
}

impl Context {
    /// Prints and keeps a result page of text, tables and verdicts. True if every target was met.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(
        &self,
        name: &str,
        title: &str,
        body: &str,
        verdicts: &[Verdict],
        data: &impl Serialize,
    ) -> Result<bool> {
        let clip = &self.clip;
        let page = format!("{}{clip}\n\n{}\n{body}", self.machine.heading(title), table::verdicts(verdicts));
        let data = serde_json::json!({ "verdicts": verdicts, "measured": data });
        self.machine.keep(&self.results, name, &page, &data)?;
        Ok(verdicts.iter().all(|v| v.pass))
    }
}
