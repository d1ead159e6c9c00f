//! TLS to cameras. Their certificates are self-made, so that no authority vouches for them: any is taken, its
//! fingerprint is said in the log, and who wants to be sure that it is the camera puts that into the configuration.

use crate::access::tls_client;
use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, ClientConfig};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// The SHA-256 of a certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Reads 64 hexadecimal digits, with or without colons.
    pub fn read(text: &str) -> Option<Self> {
        let digits: Vec<u32> = text.chars().filter(|c| *c != ':').map(|c| c.to_digit(16)).collect::<Option<_>>()?;
        let bytes: Vec<u8> =
            digits.chunks(2).map(|pair| pair.iter().fold(0, |sum, digit| sum << 4 | *digit as u8)).collect();
        Some(Self(bytes.try_into().ok()?)).filter(|_| digits.len() == 64)
    }

    /// That of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(at, byte)| {
            let colon = if at == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02x}")
        })
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The client's side of TLS to a camera that is to show that certificate, or any.
///
/// # Errors
/// As rustls, which has none for this provider.
pub(super) fn config(wanted: Option<Fingerprint>) -> Result<Arc<ClientConfig>, rustls::Error> {
    // What was shown last, so that it is said once.
    let shown = Mutex::new(None);
    tls_client(move |certificate| {
        let fingerprint = Fingerprint::of(certificate);
        let before = shown.lock().unwrap_or_else(PoisonError::into_inner).replace(fingerprint);
        match wanted {
            Some(wanted) if wanted != fingerprint => {
                return Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
            }
            None if before != Some(fingerprint) => tracing::info!(
                %fingerprint,
                "the camera's certificate is taken without proof; with `fingerprint:` no other one would be"
            ),
            _ => {}
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_they_are_shown() {
        let fingerprint = Fingerprint::of(&CertificateDer::from(&b"any bytes"[..]));
        let shown = fingerprint.to_string();
        assert_eq!(Fingerprint::read(&shown), Some(fingerprint));
        assert_eq!(Fingerprint::read(&shown.replace(':', "").to_uppercase()), Some(fingerprint));
        for wrong in ["", "ab", &shown[3..], &format!("{shown}:00"), &shown.replace(['a', '0'], "g")] {
            assert_eq!(Fingerprint::read(wrong), None, "{wrong}");
        }
    }
}
