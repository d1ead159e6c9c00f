//! An RTSP camera in the configuration.

use std::fmt;
use url::Url;

/// Stand-in until the configuration's own.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// An RTSP camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The main stream.
    pub url: Url,
    /// The second, smaller stream of the same camera, if it has one.
    pub sub: Option<Url>,
    /// The login.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// How media is carried.
    pub transport: Transport,
}

/// How the camera sends RTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Interleaved in the RTSP connection.
    #[default]
    Tcp,
    /// In UDP packets beside it.
    Udp,
    /// TCP first, UDP where the camera refuses that.
    Auto,
}
