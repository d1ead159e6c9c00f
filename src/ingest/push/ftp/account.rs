//! What a camera's FTP account can do: store pictures, nothing else.
//!
//! | command | answer |
//! |---------|--------|
//! | `STOR`, `STOU`, `APPE` of a JPEG | shown at once; the name does not matter |
//! | the same of a broken picture, or of anything that is none | 553; it is read to its end, up to 32 MiB, so that the client hears that |
//! | the same of something of at most 4 KiB that is not named as a picture | accepted and thrown away: the test of a camera's menu |
//! | of more than a picture may have | 552 |
//! | while the gateway or the camera has enough to do | 450 |
//! | `CWD`, `CDUP`, `MKD` within the account | as if there were such a folder: cameras make dated ones |
//! | the same that leads out of it | 550 |
//! | `RNFR`, `RNTO`, `SIZE` of what this session has stored | as if it were still there: some upload under another name first |
//! | `LIST`, `NLST`, `MLSD`, `MLST`, `STAT`, `RETR`, `DELE`, `RMD`, `MDTM`; `SIZE` and `RNFR` of anything else | refused |

use super::super::body;
use super::super::door::{MAX_PUSH, Pushes, Refused};
use super::Login;
use async_trait::async_trait;
use std::collections::VecDeque;
use std::fmt::{self, Debug};
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use unftp_core::auth::{
    AuthenticationError, Authenticator, Credentials, Principal, UserDetail, UserDetailError, UserDetailProvider,
};
use unftp_core::storage::{Error, ErrorKind, Fileinfo, Metadata, Result, StorageBackend};

/// Files whose names are remembered.
const REMEMBERED: usize = 16;
/// No path is longer, in bytes.
const MAX_PATH: usize = 512;
/// The file that a camera's menu tests an account with is no larger.
const MAX_TEST: usize = 4096;
/// What is still read of an upload that is of no use.
const DRAINED: usize = 2 * MAX_PUSH;
/// Bytes that are read at a time.
const PIECE: usize = 32 << 10;

/// Who is at the other end, and what it may take.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    pub(super) peer: IpAddr,
    pub(super) pushes: Arc<Pushes>,
    pub(super) login: Login,
    pub(super) upload: (Duration, Duration),
    /// Becomes true once it has signed in.
    pub(super) known: watch::Sender<bool>,
    pub(super) cancel: CancellationToken,
}

/// Who has signed in: the camera's name.
#[derive(Debug)]
pub(super) struct Key(String);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl UserDetail for Key {}

/// The accounts of one session: whom it lets in, and what it has stored.
#[derive(Debug)]
pub(super) struct Accounts {
    visitor: Visitor,
    stored: Mutex<VecDeque<(PathBuf, u64)>>,
}

impl Accounts {
    pub(super) fn new(visitor: Visitor) -> Self {
        Self { visitor, stored: Mutex::default() }
    }

    fn stored(&self) -> MutexGuard<'_, VecDeque<(PathBuf, u64)>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, path: PathBuf, length: u64) {
        let mut stored = self.stored();
        stored.retain(|(known, _)| *known != path);
        if stored.len() == REMEMBERED {
            stored.pop_front();
        }
        stored.push_back((path, length));
    }
}

#[async_trait]
impl Authenticator for Accounts {
    async fn authenticate(
        &self,
        username: &str,
        credentials: &Credentials,
    ) -> std::result::Result<Principal, AuthenticationError> {
        let password = credentials.password.as_deref().unwrap_or_default();
        let right = (self.visitor.login.0)(self.visitor.peer, username, password);
        self.visitor.known.send_if_modified(|known| right && !std::mem::replace(known, true));
        right.then(|| Principal { username: username.to_owned() }).ok_or(AuthenticationError::BadPassword)
    }
}

#[async_trait]
impl UserDetailProvider for Accounts {
    type User = Key;

    async fn provide_user_detail(&self, principal: &Principal) -> std::result::Result<Key, UserDetailError> {
        Ok(Key(principal.username.clone()))
    }
}

/// What stands where others have a file system.
#[derive(Clone, Debug)]
pub(super) struct Account(Arc<Accounts>);

/// A file that was stored.
#[derive(Debug)]
pub(super) struct Stored(u64);

impl Metadata for Stored {
    fn len(&self) -> u64 {
        self.0
    }

    fn is_dir(&self) -> bool {
        false
    }

    fn is_file(&self) -> bool {
        true
    }

    fn is_symlink(&self) -> bool {
        false
    }

    fn modified(&self) -> Result<SystemTime> {
        Err(ErrorKind::PermissionDenied.into())
    }

    fn gid(&self) -> u32 {
        0
    }

    fn uid(&self) -> u32 {
        0
    }
}

/// A path without detours; refused if it leads out of the account, or is longer than any.
fn inside(path: &Path) -> Result<PathBuf> {
    if path.as_os_str().len() > MAX_PATH {
        return Err(ErrorKind::FileNameNotAllowedError.into());
    }
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir if !plain.pop() => return Err(ErrorKind::PermissionDenied.into()),
            Component::ParentDir | Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok(plain)
}

fn refused<T>() -> Result<T> {
    Err(ErrorKind::PermissionDenied.into())
}

/// Whether a file is called a picture, or may be called so later.
fn named_as_picture(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default();
    ["jpg", "jpeg", "jpe", "tmp", "part"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

impl Account {
    pub(super) fn new(accounts: Arc<Accounts>) -> Self {
        Self(accounts)
    }

    /// Takes one upload; answers its length.
    async fn take(
        &self,
        camera: &str,
        mut input: impl AsyncRead + Unpin,
        path: &Path,
    ) -> std::result::Result<u64, Wrong> {
        let visitor = &self.0.visitor;
        let mut room = visitor.pushes.room(camera)?;
        let deadline = Instant::now() + visitor.upload.0;
        let mut bytes = Vec::new();
        let mut wrong = None;
        let mut length = 0;
        let mut piece = vec![0; PIECE];
        while length <= DRAINED {
            let read = match timeout_at(deadline, timeout(visitor.upload.1, input.read(&mut piece))).await {
                Ok(Ok(read)) => read.map_err(|_| Wrong::Broken)?,
                Ok(Err(_)) | Err(_) => return Err(Wrong::Slow),
            };
            let new = piece.get(..read).unwrap_or_default();
            if new.is_empty() {
                break;
            }
            length += read;
            if wrong.is_some() {
                continue;
            }
            match room.grow(read) {
                Ok(()) => bytes.extend_from_slice(new),
                Err(error) => wrong = Some(Wrong::Refused(error)),
            }
            if bytes.len() > MAX_TEST && !body::is_jpeg(&bytes) {
                wrong.get_or_insert(Wrong::Foreign);
            }
            if wrong.is_some() {
                bytes = Vec::new();
            }
        }
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        if !body::is_jpeg(&bytes) {
            if named_as_picture(path) {
                return Err(Wrong::Foreign);
            }
            tracing::info!(camera, bytes = length, "a small file that is no picture came by FTP, and was thrown away");
            return Ok(length as u64);
        }
        bytes.shrink_to_fit();
        let picture = Some(bytes.into());
        room.push(body::Pushed { picture, alarm: None }).await?;
        Ok(length as u64)
    }
}

/// Why an upload was not taken.
#[derive(Debug, thiserror::Error)]
enum Wrong {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("this is no JPEG picture")]
    Foreign,
    #[error("the upload broke off")]
    Broken,
    #[error("the upload took too long")]
    Slow,
}

impl From<Wrong> for Error {
    fn from(wrong: Wrong) -> Self {
        let kind = match &wrong {
            Wrong::Refused(Refused::Absent | Refused::Busy | Refused::Full) => ErrorKind::TransientFileNotAvailable,
            Wrong::Refused(Refused::TooLarge) => ErrorKind::ExceededStorageAllocationError,
            Wrong::Refused(Refused::Picture(_)) | Wrong::Foreign => ErrorKind::FileNameNotAllowedError,
            Wrong::Broken | Wrong::Slow => ErrorKind::ConnectionClosed,
        };
        Self::new(kind, wrong)
    }
}

#[async_trait]
impl StorageBackend<Key> for Account {
    type Metadata = Stored;

    async fn metadata<P: AsRef<Path> + Send + Debug>(&self, _: &Key, path: P) -> Result<Stored> {
        let path = inside(path.as_ref())?;
        let length = self.0.stored().iter().find(|(known, _)| *known == path).map(|(_, length)| *length);
        length.map(Stored).ok_or_else(|| ErrorKind::PermissionDenied.into())
    }

    async fn list<P: AsRef<Path> + Send + Debug>(&self, _: &Key, _: P) -> Result<Vec<Fileinfo<PathBuf, Stored>>> {
        refused()
    }

    async fn get<P: AsRef<Path> + Send + Debug>(
        &self,
        _: &Key,
        _: P,
        _: u64,
    ) -> Result<Box<dyn AsyncRead + Send + Sync + Unpin>> {
        refused()
    }

    async fn put<P: AsRef<Path> + Send + Debug, R: AsyncRead + Send + Sync + Unpin + 'static>(
        &self,
        user: &Key,
        input: R,
        path: P,
        start_pos: u64,
    ) -> Result<u64> {
        let path = inside(path.as_ref())?;
        if start_pos > 0 {
            return Err(ErrorKind::CommandNotImplemented.into());
        }
        let taken = tokio::select! {
            taken = self.take(&user.0, input, &path) => taken,
            () = self.0.visitor.cancel.cancelled() => return Err(ErrorKind::LocalError.into()),
        };
        let told = |wrong: &Wrong| tracing::debug!(camera = user.0, "an FTP upload was not taken: {wrong}");
        let length = taken.inspect_err(told)?;
        self.0.remember(path, length);
        Ok(length)
    }

    async fn del<P: AsRef<Path> + Send + Debug>(&self, _: &Key, _: P) -> Result<()> {
        refused()
    }

    async fn mkd<P: AsRef<Path> + Send + Debug>(&self, _: &Key, path: P) -> Result<()> {
        inside(path.as_ref()).map(|_| ())
    }

    async fn rename<P: AsRef<Path> + Send + Debug>(&self, _: &Key, from: P, to: P) -> Result<()> {
        let (from, to) = (inside(from.as_ref())?, inside(to.as_ref())?);
        let length = {
            let mut stored = self.0.stored();
            let index = stored.iter().position(|(known, _)| *known == from);
            index.and_then(|index| stored.remove(index)).map(|(_, length)| length)
        };
        self.0.remember(to, length.ok_or(ErrorKind::PermissionDenied)?);
        Ok(())
    }

    async fn rmd<P: AsRef<Path> + Send + Debug>(&self, _: &Key, _: P) -> Result<()> {
        refused()
    }

    async fn cwd<P: AsRef<Path> + Send + Debug>(&self, _: &Key, path: P) -> Result<()> {
        inside(path.as_ref()).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;

    #[test]
    fn no_path_leads_out_of_the_account() {
        let plain = |path: &str| inside(Path::new(path)).map(|path| path.display().to_string()).map_err(|e| e.kind());
        assert_eq!(plain("/"), Ok(String::new()));
        assert_eq!(plain("/2026/./11//21/../22/a.jpg"), Ok("2026/11/22/a.jpg".into()));
        for out in ["..", "/..", "/../etc/passwd", "a/../../b", "/a/b/../../.."] {
            assert_eq!(plain(out), Err(ErrorKind::PermissionDenied), "{out}");
        }
        assert_eq!(plain(&"x".repeat(MAX_PATH + 1)), Err(ErrorKind::FileNameNotAllowedError));
    }

    #[test]
    fn what_was_stored_is_remembered_for_a_while() {
        let visitor = Visitor {
            peer: IpAddr::from([192, 0, 2, 1]),
            pushes: Arc::default(),
            login: Login::new(|_, _, _| false),
            upload: (Duration::ZERO, Duration::ZERO),
            known: watch::Sender::new(false),
            cancel: CancellationToken::new(),
        };
        let accounts = Accounts::new(visitor);
        for number in 0..REMEMBERED + 3 {
            accounts.remember(PathBuf::from(number.to_string()), 7);
        }
        let (account, key) = (Account::new(Arc::new(accounts)), Key("yard".into()));
        let known =
            |path: &str| block_on(account.metadata(&key, path)).map(|stored| stored.len()).map_err(|e| e.kind());
        assert_eq!((known("2"), known("/3")), (Err(ErrorKind::PermissionDenied), Ok(7)));
        block_on(account.rename(&key, "3", "b/../new")).unwrap();
        assert_eq!((known("3"), known("new")), (Err(ErrorKind::PermissionDenied), Ok(7)));
        assert!(block_on(account.rename(&key, "3", "x")).is_err());
    }
}
