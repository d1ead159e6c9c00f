//! TLS for HTTPS and RTSPS: one certificate for both, given or self-made, exchanged while we run.

mod client;
mod self_made;

pub(crate) use client::{blind_tls, tls_client};

use crate::config::CertificateFiles;
use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How often a self-made certificate is looked at, whether its time has come.
const LOOK: Duration = Duration::from_secs(12 * 3600);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read, or is no PEM.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Certificate and key do not fit each other, or are of a kind that is not understood.
    #[error("{} and its key cannot be used: {source}", path.display())]
    Unusable {
        /// The certificate.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// A certificate could not be made.
    #[error("no certificate could be made: {0}")]
    Make(String),
}

/// A certificate with its key, and those between it and the root.
struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Takes TLS connections with the certificate of the moment.
#[derive(Debug)]
pub struct Tls {
    config: ArcSwap<ServerConfig>,
    /// `None`: it is self-made.
    files: ArcSwapOption<CertificateFiles>,
    /// Where a self-made certificate is kept.
    folder: PathBuf,
}

impl Tls {
    /// With the certificate in these files; without files with a self-made one, which is kept below the state directory
    /// in `tls`, is made anew 30 days before its end, and lasts as long as the program where it cannot be kept.
    ///
    /// # Errors
    /// [`CertificateError`] says which file cannot be used and why.
    pub fn new(files: Option<&CertificateFiles>, state: &Path) -> Result<Self, CertificateError> {
        let folder = state.join("tls");
        let config = load(files, &folder)?;
        Ok(Self { config: ArcSwap::new(config), files: ArcSwapOption::new(files.cloned().map(Arc::new)), folder })
    }

    /// Reads the files again: connections from now on get what they hold.
    ///
    /// # Errors
    /// [`CertificateError`]; then the certificate stays the one that it was.
    pub fn reload(&self, files: Option<&CertificateFiles>) -> Result<(), CertificateError> {
        self.config.store(load(files, &self.folder)?);
        self.files.store(files.cloned().map(Arc::new));
        Ok(())
    }

    /// Makes a self-made certificate anew in time, for as long as it is polled.
    pub async fn renew(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.files.load().is_none()
                && !self_made::is_good(&self.folder, jiff::Timestamp::now())
                && let Err(error) = self.reload(None)
            {
                tracing::error!("the certificate stays as it is: {error}");
            }
        }
    }

    /// Shakes hands with a client; bound it in time.
    ///
    /// # Errors
    /// What the client did wrong, or that it is gone.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, socket: S) -> io::Result<TlsStream<S>> {
        TlsAcceptor::from(self.config.load_full()).accept(socket).await
    }
}

fn load(files: Option<&CertificateFiles>, folder: &Path) -> Result<Arc<ServerConfig>, CertificateError> {
    let (certificate, path) = match files {
        Some(files) => (read(&files.chain, &files.key)?, files.chain.clone()),
        None => (self_made::read_or_make(folder)?, folder.join(self_made::CERTIFICATE)),
    };
    let fingerprint = certificate.chain.first().map(fingerprint).unwrap_or_default();
    let config = config(certificate).map_err(|source| CertificateError::Unusable { path: path.clone(), source })?;
    tracing::info!(certificate = %path.display(), "TLS, SHA-256 fingerprint {fingerprint}");
    Ok(Arc::new(config))
}

fn config(certificate: Certificate) -> Result<ServerConfig, rustls::Error> {
    // No ALPN: HTTP/1.1 is what a client means that gets no choice, and RTSP has no such name.
    ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificate.chain, certificate.key)
}

/// Reads a certificate and its key, both PEM.
fn read(chain: &Path, key: &Path) -> Result<Certificate, CertificateError> {
    let fail = |path: &Path, reason: String| CertificateError::File { path: path.to_owned(), reason };
    let words = |error: rustls::pki_types::pem::Error| match error {
        rustls::pki_types::pem::Error::Io(error) => format!("cannot be read: {error}"),
        rustls::pki_types::pem::Error::NoItemsFound => "holds no private key in PEM form".to_owned(),
        error => format!("is no PEM: {error}"),
    };
    let certificates = CertificateDer::pem_file_iter(chain).map_err(|error| fail(chain, words(error)))?;
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(|error| fail(chain, words(error)))?;
    if certificates.is_empty() {
        return Err(fail(chain, "holds no certificate in PEM form".into()));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| fail(key, words(error)))?;
    Ok(Certificate { chain: certificates, key })
}

/// As browsers show it.
fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    Sha256::digest(certificate).iter().enumerate().fold(String::with_capacity(95), |mut text, (index, byte)| {
        let _ = write!(text, "{}{byte:02X}", if index > 0 { ":" } else { "" });
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::TlsConnector;

    fn files(folder: &Path) -> CertificateFiles {
        CertificateFiles { chain: folder.join("door.pem"), key: folder.join("door.key") }
    }

    fn write(folder: &Path) -> CertificateDer<'static> {
        let made = self_made::make(vec!["localhost".into()], jiff::Timestamp::now()).unwrap();
        let files = files(folder);
        std::fs::write(&files.chain, made.certificate).unwrap();
        std::fs::write(&files.key, made.key).unwrap();
        CertificateDer::from_pem_file(&files.chain).unwrap()
    }

    /// Whether a client that trusts this certificate alone gets through.
    async fn trusted(tls: &Tls, certificate: &CertificateDer<'static>, name: &str) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (ours, theirs) = tokio::io::duplex(16 << 10);
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let server = async {
            let mut stream = tls.accept(ours).await.ok()?;
            stream.write_all(b"hello").await.ok()?;
            stream.shutdown().await.ok()
        };
        let client = async {
            let mut stream = TlsConnector::from(Arc::new(config)).connect(name, theirs).await.ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await.ok()?;
            Some(text)
        };
        let (_, text) = tokio::join!(server, client);
        text.as_deref() == Some("hello")
    }

    #[tokio::test]
    async fn given_files_are_exchanged_and_broken_ones_change_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(folder.path());
        let first = write(folder.path());
        let tls = Tls::new(Some(&files), folder.path()).unwrap();
        assert!(trusted(&tls, &first, "localhost").await);
        assert!(!trusted(&tls, &first, "elsewhere.example").await);

        let second = write(folder.path());
        assert!(trusted(&tls, &first, "localhost").await, "until it is told");
        tls.reload(Some(&files)).unwrap();
        assert!(trusted(&tls, &second, "localhost").await && !trusted(&tls, &first, "localhost").await);

        let key = std::fs::read(&files.key).unwrap();
        let words = |tls: &Tls| {
            let words = tls.reload(Some(&files)).unwrap_err().to_string();
            words.replace(&folder.path().display().to_string(), "D")
        };
        std::fs::write(&files.key, "nothing").unwrap();
        assert_eq!(words(&tls), "D/door.key: holds no private key in PEM form");
        std::fs::remove_file(&files.key).unwrap();
        assert_eq!(words(&tls), "D/door.key: cannot be read: No such file or directory (os error 2)");
        let other = self_made::make(vec!["localhost".into()], jiff::Timestamp::now()).unwrap();
        std::fs::write(&files.key, other.key).unwrap();
        assert!(words(&tls).starts_with("D/door.pem and its key cannot be used: "), "{}", words(&tls));
        std::fs::write(&files.key, key).unwrap();
        std::fs::write(&files.chain, "").unwrap();
        assert_eq!(words(&tls), "D/door.pem: holds no certificate in PEM form");
        assert!(trusted(&tls, &second, "localhost").await, "the old one is kept");
    }

    #[tokio::test]
    async fn a_self_made_one_is_for_this_machine() {
        let folder = tempfile::tempdir().unwrap();
        let tls = Tls::new(None, folder.path()).unwrap();
        let certificate = CertificateDer::from_pem_file(folder.path().join("tls/cert.pem")).unwrap();
        for name in ["localhost", "127.0.0.1", "::1"] {
            assert!(trusted(&tls, &certificate, name).await, "{name}");
        }
        assert!(!trusted(&tls, &certificate, "192.0.2.77").await);
        let again = Tls::new(None, folder.path()).unwrap();
        assert!(trusted(&again, &certificate, "localhost").await, "kept");
    }

    #[test]
    fn a_fingerprint_is_what_browsers_show() {
        let text = fingerprint(&CertificateDer::from(vec![1, 2, 3]));
        assert!(text.starts_with("03:90:58:C6:F2:C0") && text.len() == 95, "{text}");
    }
}
