//! What a camera is: its family and how to reach it.

use super::rtsp;

/// One camera, one variant a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Speaks RTSP.
    Rtsp(rtsp::Config),
}

impl Source {
    /// The family as in YAML and JSON.
    pub fn family(&self) -> &'static str {
        match self {
            Self::Rtsp(_) => "rtsp",
        }
    }
}
