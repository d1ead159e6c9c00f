//! SDP fragments of trickle ICE (RFC 8840).

use super::offer::IceCredentials;

/// What a PATCH carries, and what answers an ICE restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The credentials of the side that sends it.
    pub ice: Option<IceCredentials>,
    /// Candidates, each as the value of `a=candidate:…` without `a=`.
    pub candidates: Vec<String>,
    /// There will be no more candidates.
    pub end_of_candidates: bool,
}
