//! The first start of a container: nobody can type a password, so one is made.

use super::password::{self, PasswordError};
use super::session::write_private;
use crate::config::{self, Mistakes, Role, Secret, User};
use std::io;
use std::path::{Path, PathBuf};

/// Users made by us, in the state directory.
const FILE: &str = "users.yaml";
/// The first user.
const ADMIN: &str = "admin";

/// What was made at the first start. To be shown once: only the hash of the password is kept.
#[derive(Clone, Debug)]
pub struct NewAdmin {
    /// The login name.
    pub name: String,
    /// For pages and API.
    pub password: Secret,
    /// The password in stream URLs.
    pub stream_key: Secret,
    /// Where the hash and the stream key are kept. Without this file a new one is made.
    pub file: PathBuf,
}

/// Why the first user could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum FirstStartError {
    /// The file of an earlier start is damaged.
    #[error("{0}")]
    Mistakes(#[from] Mistakes),
    /// The password could not be hashed.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The state directory cannot be used.
    #[error("{} cannot be written: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// The users of a state directory, for when the configuration has none. The first time an `admin` with a random
/// password is made; its hash and stream key are kept in `users.yaml` there, readable by us only, and read on later
/// starts.
///
/// # Errors
/// [`FirstStartError`]; then there are no users, and loopback only.
pub fn first_start(state: &Path) -> Result<(Vec<User>, Option<NewAdmin>), FirstStartError> {
    let file = state.join(FILE);
    if file.exists() {
        return Ok((config::load_users(&file)?, None));
    }
    let password = password::random_key();
    let stream_key = password::random_key();
    let hash = password::hash(password.reveal())?;
    let line = password::line_with(ADMIN, Role::Admin, &hash, &stream_key)?;
    let text = format!(
        "# Made at the first start, since the configuration names no users; read only as long as it names none.\n\
         # `fanlight password admin` makes a line with a password of your choice.\nusers:\n{line}\n"
    );
    write_private(state, FILE, text.as_bytes())
        .map_err(|error| FirstStartError::Write { path: file.clone(), error })?;
    let users = config::load_users(&file)?;
    Ok((users, Some(NewAdmin { name: ADMIN.into(), password, stream_key, file })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn an_admin_is_made_once_and_only_its_hash_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("data");
        let (users, made) = first_start(&state).expect("made");
        let made = made.expect("the first time");
        let [admin] = users.as_slice() else { panic!("one user") };
        assert_eq!((admin.name.as_str(), admin.role), ("admin", Role::Admin));
        assert_eq!(admin.stream_key.as_ref(), Some(&made.stream_key));
        assert_ne!(made.stream_key, made.password);
        let hash = admin.password_hash.as_ref().expect("a hash").reveal();
        assert!(password::verify(made.password.reveal(), hash));

        let text = fs::read_to_string(&made.file).expect("kept");
        assert!(!text.contains(made.password.reveal()));
        assert_eq!(fs::metadata(&made.file).expect("kept").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&state).expect("there").count(), 1, "no draft is left");

        let (again, made) = first_start(&state).expect("read");
        assert!(made.is_none());
        assert_eq!(again, users);
    }

    #[test]
    fn a_damaged_file_is_an_error_and_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(FILE);
        for text in ["users: [{ name: admin }]", "cameras: {}", "users: [", ""] {
            fs::write(&file, text).expect("written");
            assert!(matches!(first_start(folder.path()), Err(FirstStartError::Mistakes(_))), "{text}");
            assert_eq!(fs::read_to_string(&file).expect("there"), text);
        }
    }

    #[test]
    fn a_state_directory_that_cannot_be_written_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "").expect("written");
        assert!(matches!(first_start(&file.join("data")), Err(FirstStartError::Write { .. })));
    }
}
