//! `http:`

use super::values::{Listen, Network};

/// `http:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Where pages and API listen. Needs a restart when changed.
    pub listen: Vec<Listen>,
    /// Origins other than our own that may use the API, as browsers send them: `https://home.example:8123`.
    pub allow_origins: Vec<String>,
    /// Proxies whose `X-Forwarded-For`, `-Host` and `-Proto` are believed.
    pub trusted_proxies: Vec<Network>,
    /// Host names under which we may be called besides addresses and names of the local network, lower case.
    pub hosts: Vec<String>,
}
