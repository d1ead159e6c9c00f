//! TLS as a client, to those whose certificates no authority vouches for: cameras, and ourselves.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use std::fmt;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;

/// Asks `judge` about the certificate, whatever names and signatures it has. That the other side has its key is still
/// checked.
struct Verifier<J> {
    judge: J,
    provider: Arc<CryptoProvider>,
}

impl<J> fmt::Debug for Verifier<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

impl<J> ServerCertVerifier for Verifier<J>
where
    J: Fn(&CertificateDer<'_>) -> Result<(), rustls::Error> + Send + Sync,
{
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        (self.judge)(certificate).map(|()| ServerCertVerified::assertion())
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

/// The client's side, which takes the certificates that `judge` takes.
///
/// # Errors
/// As rustls, which has none for this provider.
pub(crate) fn tls_client<J>(judge: J) -> Result<Arc<ClientConfig>, rustls::Error>
where
    J: Fn(&CertificateDer<'_>) -> Result<(), rustls::Error> + Send + Sync + 'static,
{
    let provider = Arc::new(default_provider());
    let verifier = Verifier { judge, provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// A blocking TLS stream to whoever is there, for the health check: whether somebody answers is the question, not who.
/// Never for anything secret.
pub(crate) fn blind_tls(socket: TcpStream) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let config = tls_client(|_| Ok(())).map_err(io::Error::other)?;
    let name = ServerName::from(socket.peer_addr()?.ip());
    let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
    Ok(StreamOwned::new(connection, socket))
}
