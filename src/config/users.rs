//! `users:` and what can stand there. Passwords are made and checked by [`access`](crate::access).

use super::read::Fields;
use super::tree::{Place, Value};
use super::{Role, Secret, User};
use argon2::Params;
use argon2::password_hash::phc::PasswordHash;

/// A stream key is the only secret between a guest in the network and the cameras.
const MIN_STREAM_KEY: usize = 12;
/// A hash that asks for more memory is refused, in KiB: one login would take it all.
const MAX_MEMORY: u32 = 256 * 1024;
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 16;

/// Why a hash cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Not an argon2id hash in PHC form, or without salt or output.
    #[error("is no argon2id hash (`$argon2id$…`)")]
    NoHash,
    /// Outlandish parameters.
    #[error("asks for more than 256 MiB of memory, 16 passes or 16 lanes")]
    Costly,
}

/// Whether a text can be a user name. No quotes, colons or spaces: it stands in headers and URLs.
pub fn is_user_name(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-@".contains(c))
}

/// Checks that a text is an argon2id hash that can be verified at bearable cost.
///
/// # Errors
/// [`HashError`].
pub fn check_hash(hash: &str) -> Result<(), HashError> {
    let hash = PasswordHash::new(hash).map_err(|_| HashError::NoHash)?;
    if hash.algorithm.as_str() != "argon2id" || hash.salt.is_none() || hash.hash.is_none() {
        return Err(HashError::NoHash);
    }
    let params = Params::try_from(&hash).map_err(|_| HashError::NoHash)?;
    if params.m_cost() > MAX_MEMORY || params.t_cost() > MAX_PASSES || params.p_cost() > MAX_LANES {
        return Err(HashError::Costly);
    }
    Ok(())
}

/// `users:`
pub(super) fn users(fields: &mut Fields<'_, '_>) -> Vec<User> {
    let context = fields.context;
    let Some(node) = fields.take("users") else { return Vec::new() };
    let Value::List(list) = &node.value else {
        context.hide(node);
        context.mistake(node.place, format!("expected a list (`- name: …`), found {}", node.kind()));
        return Vec::new();
    };
    let mut users: Vec<User> = Vec::new();
    for node in list {
        let Some(fields) = Fields::of(context, node) else {
            context.hide(node);
            continue;
        };
        let Some(user) = user(fields, &users) else { continue };
        users.push(user);
    }
    users
}

fn user(mut fields: Fields<'_, '_>, others: &[User]) -> Option<User> {
    let context = fields.context;
    let expected = "a user name of at most 64 letters, digits and . _ - @";
    let name = fields.required("name").and_then(|node| {
        let name = context.parsed(node, expected, |text| is_user_name(text).then(|| text.to_owned()))?;
        if others.iter().any(|other| other.name == name) {
            context.mistake(node.place, format!("there is already a user {}", context.quote(node)));
        }
        Some(name)
    });
    let role = fields.word("role", &[("admin", Role::Admin), ("viewer", Role::Viewer)]);
    let hash = fields.secret("password_hash");
    if let Some((place, hash)) = &hash
        && let Err(error) = check_hash(hash.reveal())
    {
        context.mistake(*place, format!("`password_hash` {error}; `fanlight password` makes one"));
    }
    let key = fields.secret("stream_key");
    if let Some((place, key)) = &key {
        let key = key.reveal();
        if key.chars().count() < MIN_STREAM_KEY {
            let words =
                format!("`stream_key` has fewer than {MIN_STREAM_KEY} characters; `fanlight password` makes one");
            context.mistake(*place, words);
        } else if !key.chars().all(|c| c.is_ascii_graphic()) {
            context.mistake(*place, "`stream_key` may hold only ASCII letters, digits and signs");
        }
    }
    let place = fields.place;
    let forgotten = !fields.has("password_hash") && !fields.has("stream_key");
    fields.finish();
    if forgotten {
        context
            .mistake(place, "a user needs `password_hash`, `stream_key` or both; `fanlight password NAME` makes them");
    }
    let secret = |found: Option<(Place, Secret)>| found.map(|(_, secret)| secret);
    Some(User { name: name?, role: role.unwrap_or(Role::Viewer), password_hash: secret(hash), stream_key: secret(key) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bearable_argon2id_hashes_are_taken() {
        for hash in [
            "hunter22",
            "",
            "$argon2i$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ",
            "$2b$12$abcdefghijklmnopqrstuv",
        ] {
            assert!(matches!(check_hash(hash), Err(HashError::NoHash)), "{hash}");
        }
        let costly = "$argon2id$v=19$m=4194304,t=2,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        assert!(matches!(check_hash(costly), Err(HashError::Costly)));
    }

    #[test]
    fn names_that_break_headers_are_refused() {
        assert!(is_user_name("admin") && is_user_name("ann.b@home-2_x"));
        for name in ["", "a b", "a:b", "a\"", "-a", "@a", "ü", &"a".repeat(65)] {
            assert!(!is_user_name(name), "{name}");
        }
    }
}
