//! A client's side of TLS.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A client that trusts the certificate of that file and no other.
#[derive(Clone)]
pub struct Trusting(TlsConnector);

impl Trusting {
    pub fn of(certificate: &Path) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self(Arc::new(config).into())
    }

    pub async fn connect(&self, server: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        self.0.connect(server.ip().into(), TcpStream::connect(server).await?).await
    }

    /// A plain connection to that server, for clients that know nothing of TLS.
    pub async fn plain(&self, server: SocketAddr) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let plain = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut inside, _) = listener.accept().await.unwrap();
        let mut outside = self.connect(server).await.unwrap();
        tokio::spawn(async move { tokio::io::copy_bidirectional(&mut inside, &mut outside).await });
        plain
    }
}
