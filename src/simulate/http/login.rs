//! Who may see the simulated camera's pictures: Basic (RFC 7617) and Digest with MD5 (RFC 7616), from the camera's side.

use md5::{Digest as _, Md5};
use std::sync::Mutex;
use std::sync::PoisonError;

const REALM: &str = "camera";

/// How a login is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scheme {
    /// The password, in base64.
    Basic,
    /// A hash with a number used once.
    Digest,
}

/// A user name, its password, and how they are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user name.
    pub user: String,
    /// The password.
    pub password: String,
    /// How it is asked for.
    pub scheme: Scheme,
    /// After so many requests Digest's nonce is too old; 0 is never.
    pub nonce_lasts: u32,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Welcome,
    /// The `WWW-Authenticate` to answer with.
    Refused(String),
}

#[derive(Debug)]
pub(super) struct Guard {
    login: Login,
    /// The number of the nonce, how often it was used, and the greatest count that was.
    nonce: Mutex<(u32, u32, u32)>,
}

impl Guard {
    pub(super) fn new(login: Login) -> Self {
        Self { login, nonce: Mutex::new((1, 0, 0)) }
    }

    /// Judges a GET of `uri` with that `Authorization`.
    pub(super) fn judge(&self, authorization: Option<&str>, uri: &str) -> Verdict {
        match self.login.scheme {
            Scheme::Basic => {
                use base64::Engine as _;
                let Login { user, password, .. } = &self.login;
                let right = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
                match authorization.and_then(|value| value.strip_prefix("Basic ")) {
                    Some(given) if given == right => Verdict::Welcome,
                    _ => Verdict::Refused(format!("Basic realm=\"{REALM}\"")),
                }
            }
            Scheme::Digest => self.digest(authorization, uri),
        }
    }

    fn digest(&self, authorization: Option<&str>, uri: &str) -> Verdict {
        let mut nonce = self.nonce.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, used, count) = &mut *nonce;
        let mut stale = false;
        if let Some(given) = authorization.and_then(|value| value.strip_prefix("Digest ")) {
            let field = |name: &str| {
                given.split(',').find_map(|pair| {
                    let (key, value) = pair.split_once('=')?;
                    (key.trim() == name).then(|| value.trim().trim_matches('"').to_owned())
                })
            };
            let of = |name| field(name).unwrap_or_default();
            let Login { user, password, nonce_lasts, .. } = &self.login;
            let secret = hash(&format!("{user}:{REALM}:{password}"));
            let request = hash(&format!("GET:{uri}"));
            let (given_nonce, given_count) = (of("nonce"), of("nc"));
            let response =
                hash(&format!("{secret}:{given_nonce}:{given_count}:{}:{}:{request}", of("cnonce"), of("qop")));
            let fits = of("username") == *user && of("uri") == uri && of("response") == response;
            // Each count may be used once (RFC 7616 section 3.4).
            let rises = u32::from_str_radix(&given_count, 16).is_ok_and(|given| given > *count);
            if fits && given_nonce == name(*number) && rises && (*nonce_lasts == 0 || *used < *nonce_lasts) {
                (*used, *count) = (*used + 1, u32::from_str_radix(&given_count, 16).unwrap_or(*count));
                return Verdict::Welcome;
            }
            stale = fits;
        }
        if stale {
            (*number, *used, *count) = (*number + 1, 0, 0);
        }
        let stale = if stale { ", stale=true" } else { "" };
        Verdict::Refused(format!(
            "Digest realm=\"{REALM}\", qop=\"auth\", algorithm=MD5, nonce=\"{}\"{stale}",
            name(*number)
        ))
    }
}

fn name(nonce: u32) -> String {
    format!("n{nonce:08x}")
}

fn hash(text: &str) -> String {
    Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_auth::{PasswordClient, PasswordParams};

    fn ask(guard: &Guard, client: Option<&mut PasswordClient>, password: &str) -> Verdict {
        let uri = "/video?a=b";
        let params = PasswordParams { username: "ann", password, uri, method: "GET", body: Some(&[]) };
        let authorization = client.map(|client| client.respond(&params).unwrap());
        guard.judge(authorization.as_deref(), uri)
    }

    #[test]
    fn both_ways_let_in_who_knows_the_password_and_nobody_else() {
        for scheme in [Scheme::Basic, Scheme::Digest] {
            let login = Login { user: "ann".into(), password: "p: w".into(), scheme, nonce_lasts: 2 };
            let guard = Guard::new(login);
            let Verdict::Refused(challenge) = ask(&guard, None, "") else { panic!("anybody is let in") };
            let mut client = PasswordClient::try_from(challenge.as_str()).unwrap();
            assert!(matches!(ask(&guard, Some(&mut client), "x"), Verdict::Refused(text) if !text.contains("stale")));
            assert_eq!(ask(&guard, Some(&mut client), "p: w"), Verdict::Welcome);
            assert_eq!(ask(&guard, Some(&mut client), "p: w"), Verdict::Welcome);
            let third = ask(&guard, Some(&mut client), "p: w");
            match scheme {
                Scheme::Basic => assert_eq!(third, Verdict::Welcome),
                Scheme::Digest => {
                    let Verdict::Refused(again) = third else { panic!("the nonce is for ever") };
                    assert!(again.contains("stale=true") && again != challenge);
                    let mut client = PasswordClient::try_from(again.as_str()).unwrap();
                    assert_eq!(ask(&guard, Some(&mut client), "p: w"), Verdict::Welcome);
                }
            }
        }
    }
}
