//! Sessions of pages: a signed token in a cookie, so that nothing is kept for them here.
//!
//! `EXPIRY.SIGNATURE.NAME`: seconds since 1970, HMAC-SHA-256 in hexadecimal, the user's name. The signature covers the
//! user's password hash as well, so that a changed password ends that user's sessions; it is checked in constant time
//! and without argon2.

use crate::config::User;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};
use subtle::ConstantTimeEq;

/// How long a session lasts after it was last renewed.
pub const SESSION: Duration = Duration::from_secs(30 * 24 * 3600);
/// A session is renewed when it is used and older than this.
const RENEW: Duration = Duration::from_secs(24 * 3600);
/// The file of the key, in the state directory.
const FILE: &str = "session.key";
/// Longer tokens are not read, in bytes.
const MAX_LENGTH: usize = 256;

/// A user's session, as a cookie showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed<T> {
    /// Whose it is.
    pub user: T,
    /// A new token, where the old one has aged.
    pub token: Option<String>,
}

/// Makes tokens and knows them again.
#[derive(Debug)]
pub(super) struct Sessions {
    /// Where the key is kept, so that sessions outlast a restart; `None`: nowhere.
    folder: Option<PathBuf>,
    key: OnceLock<Key>,
}

struct Key([u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Sessions {
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        Self { folder, key: OnceLock::new() }
    }

    /// The key, read or made when it is first needed.
    fn key(&self) -> &[u8; 32] {
        let key = self.key.get_or_init(|| {
            let Some(folder) = &self.folder else { return Key(rand::random()) };
            Key(read_or_make(folder).unwrap_or_else(|error| {
                tracing::warn!(
                    "{} cannot be used, so who signs in has to do so again after a restart: {error}",
                    folder.join(FILE).display()
                );
                rand::random()
            }))
        });
        &key.0
    }

    fn sign(&self, user: &User, expiry: u64) -> Option<String> {
        let hash = user.password_hash.as_ref()?;
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key()).expect("HMAC takes keys of any length");
        for part in [b"fanlight session 1".as_slice(), user.name.as_bytes(), hash.reveal().as_bytes()] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.update(&expiry.to_be_bytes());
        let signature = mac.finalize().into_bytes();
        Some(signature.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }))
    }

    /// A token of that user that ends [`SESSION`] from now; `None` for a user who cannot sign in.
    pub(super) fn make(&self, user: &User, now: SystemTime) -> Option<String> {
        let expiry = seconds(now + SESSION);
        Some(format!("{expiry}.{}.{}", self.sign(user, expiry)?, user.name))
    }

    /// The user whose token this is, found by name, while it lasts.
    pub(super) fn check<T: AsRef<User>>(
        &self,
        token: &str,
        find: impl Fn(&str) -> Option<T>,
        now: SystemTime,
    ) -> Option<Renewed<T>> {
        if token.len() > MAX_LENGTH {
            return None;
        }
        let mut parts = token.splitn(3, '.');
        let expiry: u64 = parts.next()?.parse().ok()?;
        let (signature, name) = (parts.next()?, parts.next()?);
        let user = find(name)?;
        let expected = self.sign(user.as_ref(), expiry)?;
        let ours: bool = expected.as_bytes().ct_eq(signature.as_bytes()).into();
        let left = expiry.checked_sub(seconds(now)).filter(|left| ours && *left > 0)?;
        let aged = left < (SESSION - RENEW).as_secs();
        let token = if aged { self.make(user.as_ref(), now) } else { None };
        Some(Renewed { user, token })
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn read_or_make(folder: &Path) -> io::Result<[u8; 32]> {
    let file = folder.join(FILE);
    match fs::read(&file) {
        Ok(bytes) => return bytes.try_into().map_err(|_| io::Error::other("it is not 32 bytes long")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let key: [u8; 32] = rand::random();
    write_private(folder, FILE, &key)?;
    Ok(key)
}

/// Writes a whole file or none of it, readable by its owner only from the first byte; makes the folder.
pub(super) fn write_private(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let draft = folder.join(format!(".{name}.{:08x}", rand::random::<u32>()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut open| open.write_all(bytes).and_then(|()| open.sync_all()))
        .and_then(|()| fs::rename(&draft, folder.join(name)));
    if written.is_err() {
        // Nothing depends on it, and it may not even be there.
        let _ = fs::remove_file(&draft);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Role, Secret};
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    fn ann(hash: &str) -> Arc<User> {
        Arc::new(User {
            name: "ann.b@home".into(),
            role: Role::Viewer,
            password_hash: Some(Secret::new(hash)),
            stream_key: None,
        })
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn check(sessions: &Sessions, token: &str, user: &Arc<User>, after: Duration) -> Option<Renewed<Arc<User>>> {
        sessions.check(token, |name| (name == user.name).then(|| user.clone()), now() + after)
    }

    #[test]
    fn a_token_is_its_users_for_thirty_days() {
        let (sessions, user) = (Sessions::new(None), ann("hash"));
        let token = sessions.make(&user, now()).expect("made");
        let fresh = check(&sessions, &token, &user, Duration::ZERO).expect("valid");
        assert_eq!(fresh, Renewed { user: user.clone(), token: None });
        let last = check(&sessions, &token, &user, SESSION - Duration::from_secs(1)).expect("valid");
        let renewed = last.token.expect("renewed");
        assert!(check(&sessions, &token, &user, SESSION).is_none(), "expired");
        assert!(check(&sessions, &renewed, &user, SESSION).is_some());
        assert!(check(&sessions, &token, &ann("another hash"), Duration::ZERO).is_none(), "password changed");
        assert!(check(&Sessions::new(None), &token, &user, Duration::ZERO).is_none(), "another key");
        let nobody = User { password_hash: None, ..(*user).clone() };
        assert!(sessions.make(&nobody, now()).is_none());
        assert!(check(&sessions, &token, &Arc::new(nobody), Duration::ZERO).is_none());
    }

    #[test]
    fn changed_tokens_are_nobodys() {
        let (sessions, user) = (Sessions::new(None), ann("hash"));
        let token = sessions.make(&user, now()).expect("made");
        let (expiry, rest) = token.split_once('.').expect("three parts");
        let later: u64 = expiry.parse::<u64>().expect("a number") + 1;
        for wrong in [
            format!("{later}.{rest}"),
            token.replace("ann", "bob"),
            token.to_uppercase(),
            format!("{expiry}..ann.b@home"),
            format!("{expiry}.ann.b@home"),
            token.replacen('.', "", 1),
            String::new(),
            "..".into(),
            format!("{token}{}", "x".repeat(300)),
        ] {
            assert!(check(&sessions, &wrong, &user, Duration::ZERO).is_none(), "{wrong}");
        }
    }

    #[test]
    fn the_key_outlasts_a_restart_and_is_readable_by_us_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("data");
        let user = ann("hash");
        let sessions = Sessions::new(Some(state.clone()));
        assert!(!state.exists(), "made when it is needed");
        let token = sessions.make(&user, now()).expect("made");
        let file = state.join(FILE);
        assert_eq!(fs::metadata(&file).expect("kept").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&state).expect("there").count(), 1, "no draft is left");
        assert!(check(&Sessions::new(Some(state.clone())), &token, &user, Duration::ZERO).is_some());
        // A damaged or unreachable file is left alone, and sessions last as long as the process.
        fs::write(&file, "short").expect("written");
        for folder in [state, file.join("below a file")] {
            let sessions = Sessions::new(Some(folder));
            assert!(check(&sessions, &token, &user, Duration::ZERO).is_none());
            let token = sessions.make(&user, now()).expect("made");
            assert!(check(&sessions, &token, &user, Duration::ZERO).is_some());
        }
        assert_eq!(fs::read(&file).expect("there"), b"short");
        assert!(format!("{sessions:?}").contains("***"));
    }
}
