//! The certificate that we make ourselves: browsers ask once whether to trust it.

use super::{Certificate, CertificateError, read};
use crate::access::session::write_private;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// The file names below the state directory's `tls`.
pub(super) const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";
/// What stands before the end in the first line of the certificate's file; PEM allows text there (RFC 7468 section 2).
const MARK: &str = "Made by Fanlight, valid until ";
/// As long as browsers bear (398 days).
const DAYS: i64 = 397;
/// A new one is made this long before its end.
const RENEW_DAYS: i64 = 30;
/// Machines with more addresses than this have containers, not cables.
const MAX_ADDRESSES: usize = 32;

/// A certificate and its key in PEM.
pub(super) struct Made {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// The kept one, if it will be good for a while; else a new one, which is kept if that can be.
pub(super) fn read_or_make(folder: &Path) -> Result<Certificate, CertificateError> {
    let (certificate, key) = (folder.join(CERTIFICATE), folder.join(KEY));
    let now = Timestamp::now();
    if is_good(folder, now) {
        return read(&certificate, &key);
    }
    let made = make(names(), now)?;
    // The key first: one without its certificate is not looked at.
    let kept = write_private(folder, KEY, made.key.as_bytes())
        .and_then(|()| write_private(folder, CERTIFICATE, made.certificate.as_bytes()));
    match kept {
        Ok(()) => tracing::info!("a certificate was made, kept in {}", certificate.display()),
        Err(error) => tracing::warn!(
            "{} cannot be written, so there is another certificate after a restart: {error}",
            certificate.display()
        ),
    }
    made.parse()
}

/// Whether the kept one can be used and will not end soon.
pub(super) fn is_good(folder: &Path, now: Timestamp) -> bool {
    let (certificate, key) = (folder.join(CERTIFICATE), folder.join(KEY));
    let fits = || read(&certificate, &key).is_ok_and(|kept| super::config(kept).is_ok());
    end(&certificate).is_some_and(|end| end > day(now, RENEW_DAYS)) && fits()
}

/// The day that the file of a certificate names as its last.
fn end(file: &Path) -> Option<jiff::civil::Date> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().next()?.strip_prefix(MARK)?.parse().ok()
}

fn day(now: Timestamp, days: i64) -> jiff::civil::Date {
    let today = now.to_zoned(TimeZone::UTC).date();
    today.checked_add(days.days()).unwrap_or(today)
}

/// Makes a certificate for these names and addresses, good from the day before to [`DAYS`] after.
pub(super) fn make(names: Vec<String>, now: Timestamp) -> Result<Made, CertificateError> {
    let fail = |error: rcgen::Error| CertificateError::Make(error.to_string());
    let (begin, end) = (day(now, -1), day(now, DAYS));
    let date = |date: jiff::civil::Date| {
        // Months and days are never negative.
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        rcgen::date_time_ymd(date.year().into(), month, day)
    };
    let title = format!("Fanlight on {}", names.first().map_or("localhost", String::as_str));
    let mut params = CertificateParams::new(names).map_err(fail)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, title);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (params.not_before, params.not_after) = (date(begin), date(end));
    let key = KeyPair::generate().map_err(fail)?;
    let certificate = params.self_signed(&key).map_err(fail)?;
    Ok(Made { certificate: format!("{MARK}{end}\n{}", certificate.pem()), key: key.serialize_pem() })
}

impl Made {
    fn parse(&self) -> Result<Certificate, CertificateError> {
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let fail = |error: rustls::pki_types::pem::Error| CertificateError::Make(error.to_string());
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes()).map_err(fail)?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(fail)?;
        Ok(Certificate { chain: vec![certificate], key })
    }
}

/// What this machine is called by those around it.
fn names() -> Vec<String> {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let host = host.map(|host| host.trim_end_matches('.').to_ascii_lowercase());
    let plain = |name: &String| {
        let valid = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        name.len() <= 253 && name.split('.').all(valid)
    };
    let host = host.filter(plain);
    let mut names = Vec::new();
    if let Some(host) = host.filter(|host| host != "localhost") {
        let first = host.split('.').next().unwrap_or_default();
        let mdns = format!("{first}.local");
        if mdns != host {
            names.extend([host.clone(), mdns]);
        } else {
            names.push(host);
        }
    }
    names.push("localhost".into());
    names.extend(addresses().iter().map(IpAddr::to_string));
    names
}

/// Our own addresses, but for those that mean nothing without an interface.
fn addresses() -> BTreeSet<IpAddr> {
    let mut found = BTreeSet::from([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return found };
    for address in interfaces.filter_map(|interface| interface.address) {
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let v6 = address.as_sockaddr_in6().map(|address| address.ip());
        let v6 = v6.filter(|ip| !ip.is_unicast_link_local()).map(IpAddr::V6);
        if found.len() < MAX_ADDRESSES {
            found.extend(v4.or(v6));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn it_is_kept_and_made_anew_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("tls");
        let first = read_or_make(&folder).unwrap();
        for name in [CERTIFICATE, KEY] {
            assert_eq!(fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(read_or_make(&folder).unwrap().chain, first.chain);
        let now = Timestamp::now();
        let later = |days: i64| now + (24 * days).hours();
        assert!(is_good(&folder, later(DAYS - RENEW_DAYS - 1)) && !is_good(&folder, later(DAYS - RENEW_DAYS)));

        let ending = make(names(), later(RENEW_DAYS - DAYS)).unwrap();
        fs::write(folder.join(CERTIFICATE), &ending.certificate).unwrap();
        fs::write(folder.join(KEY), &ending.key).unwrap();
        let renewed = read_or_make(&folder).unwrap();
        assert_ne!(renewed.chain, ending.parse().unwrap().chain);
        assert_eq!(read_or_make(&folder).unwrap().chain, renewed.chain);

        // A key of another certificate, or none.
        fs::write(folder.join(KEY), &ending.key).unwrap();
        assert_ne!(read_or_make(&folder).unwrap().chain, renewed.chain);
        fs::write(folder.join(KEY), "").unwrap();
        assert!(read_or_make(&folder).is_ok() && is_good(&folder, now));
    }

    #[test]
    fn it_serves_without_a_place_to_be_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(read_or_make(&file.join("tls")).is_ok());
    }

    #[test]
    fn names_are_those_of_this_machine() {
        let names = names();
        for expected in ["localhost", "127.0.0.1", "::1"] {
            assert!(names.iter().any(|name| name == expected), "{names:?}");
        }
        assert!(!names.iter().any(|name| name.starts_with("fe80")), "{names:?}");
    }
}
