//! Passwords and stream keys: making, hashing, checking.
//!
//! The login password is kept as an argon2id hash in PHC form. The stream key must be known in the clear, since Digest
//! (RFC 7616) computes with it; that is why it is another one, random, and good for watching only.

pub use crate::config::is_user_name;

use crate::config::{Role, Secret};
use argon2::password_hash::{CustomizedPasswordHasher, PasswordVerifier};
use argon2::{Argon2, Params};
use rand::RngExt as _;
use std::io::{self, BufRead, IsTerminal};

/// Shorter passwords are refused, in characters.
pub const MIN_PASSWORD: usize = 8;
/// Longer ones too, in bytes: nobody means them.
pub const MAX_PASSWORD: usize = 1024;
/// Characters of a random key: 5.8 bits each, none of them mistaken for another, all of them good in URLs.
const ALPHABET: &[u8] = b"abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// 139 bits.
const STREAM_KEY: usize = 24;

/// Why a password or its hash cannot be used. Holds neither.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Fewer than [`MIN_PASSWORD`] characters.
    #[error("the password has {0} characters; take at least {MIN_PASSWORD}")]
    Short(usize),
    /// More than [`MAX_PASSWORD`] bytes.
    #[error("the password is longer than {MAX_PASSWORD} bytes")]
    Long,
    /// Both entries differ.
    #[error("the two passwords differ")]
    Differ,
    /// Not a name that [`is_user_name`] takes.
    #[error("a user name is made of at most 64 letters, digits and . _ - @, and begins with a letter or digit")]
    Name,
    /// The hash function failed.
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
    /// Terminal or standard input.
    #[error("the password cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// Hashes a password with argon2id at its defaults (19 MiB, two passes; about 35 ms).
///
/// # Errors
/// [`PasswordError::Short`], [`PasswordError::Long`], [`PasswordError::Hash`].
pub fn hash(password: &str) -> Result<String, PasswordError> {
    hash_with(password, Params::default())
}

/// Like [`hash`], at a cost of choice.
pub(crate) fn hash_with(password: &str, params: Params) -> Result<String, PasswordError> {
    let length = password.chars().count();
    if length < MIN_PASSWORD {
        return Err(PasswordError::Short(length));
    }
    if password.len() > MAX_PASSWORD {
        return Err(PasswordError::Long);
    }
    let salt: [u8; 16] = rand::rng().random();
    Argon2::default()
        .hash_password_customized(password.as_bytes(), &salt, None, None, params)
        .map(|hash| hash.to_string())
        .map_err(|error| PasswordError::Hash(error.to_string()))
}

/// Whether a password fits a hash. Takes as long as the hash asks for: never on the event loop.
pub fn verify(password: &str, hash: &str) -> bool {
    password.len() <= MAX_PASSWORD && Argon2::default().verify_password(password.as_bytes(), hash).is_ok()
}

/// A random stream key of 24 characters that survive URLs, phones and paper.
pub fn random_key() -> Secret {
    let mut random = rand::rng();
    let key: String = (0..STREAM_KEY)
        .filter_map(|_| ALPHABET.get(random.random_range(0..ALPHABET.len())).map(|byte| char::from(*byte)))
        .collect();
    Secret::new(key)
}

/// A whole line for `users:` with the hash of this password and a new stream key.
///
/// # Errors
/// A name or password that cannot be used.
pub fn line(name: &str, role: Role, password: &Secret) -> Result<String, PasswordError> {
    line_with(name, role, &hash(password.reveal())?, &random_key())
}

pub(crate) fn line_with(name: &str, role: Role, hash: &str, key: &Secret) -> Result<String, PasswordError> {
    if !is_user_name(name) {
        return Err(PasswordError::Name);
    }
    let (role, key) = (role.name(), key.reveal());
    Ok(format!("  - {{ name: {name}, role: {role}, password_hash: \"{hash}\", stream_key: {key} }}"))
}

/// Reads a password: from a terminal twice without echo, from anything else its first line.
///
/// # Errors
/// [`PasswordError::Differ`], [`PasswordError::Read`]; length is checked where it is hashed.
pub fn read() -> Result<Secret, PasswordError> {
    if !io::stdin().is_terminal() {
        return read_line(io::stdin().lock());
    }
    let first = rpassword::prompt_password("Password: ")?;
    let second = rpassword::prompt_password("Once more: ")?;
    if first == second { Ok(Secret::new(first)) } else { Err(PasswordError::Differ) }
}

fn read_line(input: impl BufRead) -> Result<Secret, PasswordError> {
    let mut text = String::new();
    input.take(MAX_PASSWORD as u64 + 3).read_line(&mut text)?;
    Ok(Secret::new(text.trim_end_matches(['\n', '\r'])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn little() -> Params {
        Params::new(Params::MIN_M_COST, 1, 1, None).expect("valid")
    }

    #[test]
    fn a_hash_fits_its_password_only() {
        let hash = hash_with("correct horse", little()).expect("hashed");
        assert!(hash.starts_with("$argon2id$v=19$"));
        assert!(crate::config::check_hash(&hash).is_ok());
        assert!(verify("correct horse", &hash));
        assert!(!verify("correct horsf", &hash) && !verify("", &hash));
        assert_ne!(hash, hash_with("correct horse", little()).expect("hashed"), "salted");
    }

    #[test]
    fn passwords_too_short_or_too_long_are_refused() {
        let words = |text: &str| hash_with(text, little()).expect_err("refused").to_string();
        assert_eq!(words("sieben7"), "the password has 7 characters; take at least 8");
        assert_eq!(words(&"x".repeat(1025)), "the password is longer than 1024 bytes");
    }

    #[test]
    fn keys_are_long_unlike_and_unambiguous() {
        let (one, other) = (random_key(), random_key());
        assert_ne!(one, other);
        assert_eq!(one.reveal().len(), 24);
        assert!(!one.reveal().contains(['0', 'O', '1', 'l', 'I']));
    }

    #[test]
    fn names_that_break_headers_are_refused() {
        for name in ["", "a b", "a:b", "a\""] {
            assert!(line_with(name, Role::Viewer, "h", &random_key()).is_err());
        }
    }

    #[test]
    fn standard_input_gives_its_first_line() {
        assert_eq!(read_line(&b"secret \r\nmore"[..]).expect("read").reveal(), "secret ");
        assert_eq!(read_line(&b""[..]).expect("read").reveal(), "");
        assert!(read_line(&b"\xff\xfe\n"[..]).is_err());
    }
}
