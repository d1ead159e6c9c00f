//! TLS to cameras. Their certificates are self-made, so that no authority vouches for them: any is taken, its
//! fingerprint is said in the log, and who wants to be sure that it is the camera puts that into the configuration.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
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

/// Takes the one certificate that is wanted, or any.
#[derive(Debug)]
struct Verifier {
    wanted: Option<Fingerprint>,
    /// What was shown last, so that it is said once.
    shown: Mutex<Option<Fingerprint>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let fingerprint = Fingerprint::of(certificate);
        let before = self.shown.lock().unwrap_or_else(PoisonError::into_inner).replace(fingerprint);
        if let Some(wanted) = self.wanted {
            if wanted != fingerprint {
                return Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
            }
        } else if before != Some(fingerprint) {
            tracing::info!(
                %fingerprint,
                "the camera's certificate is taken without proof; with `fingerprint:` no other one would be"
            );
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The client's side of TLS to a camera that is to show that certificate.
///
/// # Errors
/// As rustls, which has none for this provider.
pub(super) fn config(wanted: Option<Fingerprint>) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(default_provider());
    let verifier = Verifier { wanted, shown: Mutex::default(), provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
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
