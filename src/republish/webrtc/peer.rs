//! What talks ICE, DTLS and SRTP with a viewer, without I/O: the only place that knows `rtc`.
//!
//! Its protocol cores are used one by one and not its peer connection. That one sends every packet through eight handlers
//! (1.8 to 2.1 µs each; measured), stays with the first nominated pair for ever, so that a
//! browser which finds a better way is lost, and takes a viewer for gone that sends RTCP but no checks (read in 0.21.1).

mod feedback;
mod ice;
mod secure;

pub(super) use feedback::{Feedback, read as read_feedback};
pub(super) use ice::{Ice, fragment_of, new_credentials};
pub(super) use secure::{Event, Secure};

use rtc::crypto::{self, RTCCryptoProvider};
use rtc::dtls::crypto::Certificate;
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;

/// What a datagram is by its first byte (RFC 7983).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// An ICE check or its answer.
    Stun,
    /// DTLS.
    Dtls,
    /// SRTP or SRTCP.
    Media,
    /// Nothing that belongs here.
    Other,
}

impl Class {
    /// The class of that datagram.
    pub(super) fn of(datagram: &[u8]) -> Self {
        match datagram.first() {
            Some(0..=3) => Self::Stun,
            Some(20..=63) => Self::Dtls,
            Some(128..=191) => Self::Media,
            _ => Self::Other,
        }
    }
}

/// The certificate that all our DTLS connections show: made at start, so that no viewer waits for one.
#[derive(Clone)]
pub(super) struct Identity {
    provider: Arc<dyn RTCCryptoProvider>,
    certificate: Certificate,
    fingerprint: Arc<str>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl Identity {
    /// A new ECDSA P-256 key and its self-made certificate.
    ///
    /// # Errors
    /// What the cryptography says, which is never expected.
    pub(super) fn new() -> Result<Self, String> {
        let provider = crypto::default_provider().map_err(|error| error.to_string())?;
        let certificate = Certificate::generate_self_signed(["fanlight".to_owned()], provider.crypto())
            .map_err(|error| error.to_string())?;
        let der = certificate.certificate.first().ok_or("no certificate was made")?;
        let bytes: Vec<String> = Sha256::digest(der.as_ref()).iter().map(|byte| format!("{byte:02X}")).collect();
        Ok(Self { provider, fingerprint: bytes.join(":").into(), certificate })
    }

    /// The SHA-256 fingerprint as in SDP (RFC 8122).
    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// The addresses of this machine.
///
/// # Errors
/// What the system answers.
pub(super) fn interfaces() -> std::io::Result<Vec<std::net::IpAddr>> {
    let all = rtc::shared::ifaces::ifaces()?;
    Ok(all.into_iter().filter_map(|interface| interface.addr).map(|address| address.ip()).collect())
}
