//! Who may: users, passwords, stream keys, limits on failures, sessions; and TLS.
//!
//! HTTP takes the login password, as Basic or Bearer, against its argon2id hash, or the cookie that signing in with it
//! gave. RTSP takes the user's stream key, as
//! Digest or Basic: it ends up in recorders' files, so it is another secret and worth less. A request without
//! credentials is asked for them and is no failure; too many failures of one address are not heard for a while.

mod authorization;
pub(crate) mod crowd;
mod digest;
mod first_start;
mod limit;
mod memory;
pub mod password;
mod session;
mod tls;

pub use authorization::{Authorization, Digest};
pub use first_start::{FirstStartError, NewAdmin, first_start};
pub(crate) use limit::Limiter;
pub use session::{Renewed, SESSION};
pub use tls::{CertificateError, Tls};

pub(crate) use tls::{blind_tls, tls_client};

pub use crate::config::{Auth, Role, User};

use crate::config::Secret;
use arc_swap::ArcSwap;
use digest::{NonceAge, Nonces};
use memory::Memory;
use session::Sessions;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use subtle::ConstantTimeEq;
use tokio::sync::{Semaphore, watch};

/// Checked in place of an unknown user's, so that the time does not tell which names exist. Nobody knows its password.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5bm9ib2R5bm9ib2R5$7u5Zk0kq2bPcPmUvHWNYJ5W0l0x3u1F1mQ0nJcN9E6s";
/// What an HTTP client is told with a 401: the value of `WWW-Authenticate`.
pub const HTTP_CHALLENGE: &str = "Basic realm=\"Fanlight\", charset=\"UTF-8\"";

/// Limits, parameters so that tests need no minutes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Failures of one address that may come at once.
    pub failures: u32,
    /// After each of these one failure is forgiven.
    pub forgive: Duration,
    /// Addresses with failures that are remembered.
    pub addresses: usize,
    /// How long a verified login need not be verified again.
    pub remember: Duration,
    /// Verified logins that are remembered.
    pub logins: usize,
    /// How long a Digest nonce can be used; then the client is given another and asked again.
    pub nonce: Duration,
    /// Logins that may wait for their turn to be verified.
    pub waiting: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            failures: 10,
            forgive: Duration::from_secs(6),
            addresses: 4096,
            remember: Duration::from_secs(600),
            logins: 256,
            nonce: Duration::from_secs(600),
            waiting: 64,
        }
    }
}

/// The answer to an RTSP request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RtspVerdict {
    /// Go on; without a user where nobody is asked for.
    Granted(Option<Arc<User>>),
    /// 401 with [`Access::rtsp_challenges`].
    Challenge {
        /// The password was right, the nonce is too old.
        stale: bool,
    },
    /// Too many failures of this address: 403, and close.
    Limited,
}

/// The answer to an HTTP request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpVerdict {
    /// Go on; without a user where nobody is asked for. What a user may do is said by its role.
    Granted(Option<Arc<User>>),
    /// 401 with [`HTTP_CHALLENGE`].
    Denied,
    /// Too many failures of this address: 429.
    Limited,
}

/// Users and their logins. Shared by all servers; its users can be replaced while it runs.
#[derive(Debug)]
pub struct Access {
    users: ArcSwap<Users>,
    changed: watch::Sender<u64>,
    nonces: Nonces,
    limiter: Limiter,
    good: Memory<Arc<User>>,
    /// What devices show for their cameras, by the cameras' names.
    tokens: ArcSwap<HashMap<String, Secret>>,
    /// Right tokens with the addresses that showed them: these are heard although others behind the same address, as
    /// behind a container's bridge, have had too many failures.
    good_tokens: Memory<()>,
    /// Wrong logins, so that a client which repeats one costs nothing and is no attack.
    bad: Memory<()>,
    /// argon2 takes 19 MiB and a core: one at a time.
    turn: Semaphore,
    queue: Semaphore,
    sessions: Sessions,
}

#[derive(Debug)]
struct Users {
    auth: Auth,
    list: Vec<Arc<User>>,
    /// Counts replacements, so that what was found out with the old users is not used with the new.
    generation: u64,
}

impl Users {
    /// Whether anybody may without asking; `None` where users are asked for.
    fn without_asking(&self, peer: IpAddr) -> Option<bool> {
        match self.auth {
            Auth::None => Some(true),
            Auth::Users if self.list.is_empty() => Some(peer.to_canonical().is_loopback()),
            Auth::Users => None,
        }
    }

    fn named(&self, name: &str) -> Option<&Arc<User>> {
        self.list.iter().find(|user| user.name == name)
    }
}

impl Access {
    /// Users as configured, with the usual limits.
    pub fn new(auth: Auth, users: Vec<User>) -> Self {
        Self::with_limits(auth, users, Limits::default())
    }

    /// Everything open to everybody: `auth: none`.
    pub fn open() -> Arc<Self> {
        Arc::new(Self::new(Auth::None, Vec::new()))
    }

    /// Users as configured.
    pub fn with_limits(auth: Auth, users: Vec<User>, limits: Limits) -> Self {
        let list = users.into_iter().map(Arc::new).collect();
        Self {
            users: ArcSwap::from_pointee(Users { auth, list, generation: 0 }),
            changed: watch::Sender::new(0),
            nonces: Nonces::new(limits.nonce),
            limiter: Limiter::new(limits.failures, limits.forgive, limits.addresses),
            good: Memory::new(limits.remember, limits.logins),
            tokens: ArcSwap::default(),
            good_tokens: Memory::new(limits.remember, limits.logins),
            bad: Memory::new(limits.remember, limits.logins),
            turn: Semaphore::new(1),
            queue: Semaphore::new(limits.waiting),
            sessions: Sessions::new(None),
        }
    }

    /// Keeps the key of sessions in that directory, so that they outlast a restart. It is made when it is first needed;
    /// where it cannot be kept, one warning says so, and sessions last as long as the program.
    #[must_use]
    pub fn keep_sessions_in(self, state: PathBuf) -> Self {
        Self { sessions: Sessions::new(Some(state)), ..self }
    }

    /// Users are asked for, but there are none: everything is to listen on loopback only. Whoever comes from elsewhere
    /// is refused all the same.
    pub fn loopback_only(&self) -> bool {
        let users = self.users.load();
        users.auth == Auth::Users && users.list.is_empty()
    }

    /// Replaces the users, after a reload. Tells [`Self::sessions_changed`] if anything differs.
    pub fn replace(&self, auth: Auth, users: Vec<User>) {
        let old = self.users.load_full();
        if old.auth == auth && old.list.iter().map(AsRef::as_ref).eq(&users) {
            return;
        }
        // Equal users stay the same, so that nobody who is logged in notices.
        let keep = |user: User| old.list.iter().find(|old| ***old == user).cloned().unwrap_or_else(|| Arc::new(user));
        let list = users.into_iter().map(keep).collect();
        self.users.store(Arc::new(Users { auth, list, generation: old.generation + 1 }));
        self.good.clear();
        self.bad.clear();
        self.changed.send_modify(|generation| *generation += 1);
    }

    /// Replaces the tokens of cameras, after a reload.
    pub fn replace_tokens(&self, tokens: impl IntoIterator<Item = (String, Secret)>) {
        self.tokens.store(Arc::new(tokens.into_iter().collect()));
        self.good_tokens.clear();
    }

    /// Checks what a device shows as the token of its camera. A wrong one is a failure of its address.
    pub fn check_token(&self, peer: IpAddr, camera: &str, token: &str) -> HttpVerdict {
        match self.token_fits(peer, camera, token) {
            Some(true) => HttpVerdict::Granted(None),
            Some(false) => {
                self.failed(peer, camera, "a camera's token stands under its `source: push:`");
                HttpVerdict::Denied
            }
            None => HttpVerdict::Limited,
        }
    }

    /// Whether that is the token of the camera; `None` if the address has had too many failures to be told. A wrong one
    /// is no failure yet: it may be something else.
    pub(crate) fn token_fits(&self, peer: IpAddr, camera: &str, token: &str) -> Option<bool> {
        let login = self.good_tokens.hash(&[&peer.to_canonical().to_string(), camera, token]);
        if self.good_tokens.get(&login).is_some() {
            return Some(true);
        }
        if self.limiter.is_limited(peer) {
            return None;
        }
        // Where there is no such camera the same is done, so that the time does not tell.
        let tokens = self.tokens.load();
        let right = tokens.get(camera).map_or(NOBODY, |right| right.reveal());
        let fits = bool::from(right.as_bytes().ct_eq(token.as_bytes())) && tokens.contains_key(camera);
        if fits {
            self.good_tokens.put(login, ());
        }
        Some(fits)
    }

    /// Changes whenever users were replaced: then each session asks [`Self::is_valid`] and ends if it is not.
    pub fn sessions_changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether a session that was granted to this user, from this address, would still be: the user is neither removed
    /// nor changed.
    pub fn is_valid(&self, peer: IpAddr, user: Option<&User>) -> bool {
        let users = self.users.load();
        users
            .without_asking(peer)
            .unwrap_or_else(|| user.is_some_and(|user| users.named(&user.name).is_some_and(|now| **now == *user)))
    }

    /// The values of the three `WWW-Authenticate` lines of a 401, in their order.
    pub fn rtsp_challenges(&self, stale: bool) -> [String; 3] {
        digest::challenges(&self.nonces.make(), stale)
    }

    /// Checks one RTSP request other than OPTIONS: `uri` as in its request line.
    pub async fn check_rtsp(&self, peer: IpAddr, method: &str, uri: &str, authorization: Option<&str>) -> RtspVerdict {
        let users = self.users.load();
        let refused = RtspVerdict::Challenge { stale: false };
        match users.without_asking(peer) {
            Some(true) => return RtspVerdict::Granted(None),
            Some(false) => return refused,
            None => {}
        }
        let Some(authorization) = authorization else { return refused };
        if self.limiter.is_limited(peer) {
            return RtspVerdict::Limited;
        }
        // An unknown user's answer is checked as well, against a key that nobody has.
        let key_of = |name: &str| {
            let user = users.named(name);
            let key = user.and_then(|user| user.stream_key.as_ref());
            (user.filter(|_| key.is_some()).cloned(), key.map_or(NOBODY, |key| key.reveal()))
        };
        let (name, user, stale) = match Authorization::parse(authorization) {
            Some(Authorization::Basic { username, password }) => {
                let (user, key) = key_of(&username);
                let fits: bool = key.as_bytes().ct_eq(password.as_bytes()).into();
                (username, user.filter(|_| fits), false)
            }
            Some(Authorization::Digest(answer)) => {
                let (user, key) = key_of(&answer.username);
                let fits = digest::fits(&answer, method, key) && digest::same_resource(&answer.uri, uri);
                let stale = self.nonces.age(&answer.nonce) == NonceAge::Stale;
                (answer.username, user.filter(|_| fits), stale)
            }
            Some(Authorization::Bearer(_)) | None => (String::new(), None, false),
        };
        match user {
            Some(_) if stale => RtspVerdict::Challenge { stale: true },
            Some(user) => RtspVerdict::Granted(Some(user)),
            None => {
                self.failed(peer, &name, "RTSP takes a user's stream_key, not the login password");
                refused
            }
        }
    }

    /// Checks one HTTP request.
    pub async fn check_http(&self, peer: IpAddr, authorization: Option<&str>) -> HttpVerdict {
        let users = self.users.load_full();
        match users.without_asking(peer) {
            Some(true) => return HttpVerdict::Granted(None),
            Some(false) => return HttpVerdict::Denied,
            None => {}
        }
        let Some(authorization) = authorization else { return HttpVerdict::Denied };
        match Authorization::parse(authorization) {
            Some(Authorization::Basic { username, password }) => {
                self.check_login(peer, users, Some(username), password).await
            }
            Some(Authorization::Bearer(password)) => self.check_login(peer, users, None, password).await,
            Some(Authorization::Digest(_)) | None => {
                if self.limiter.is_limited(peer) {
                    return HttpVerdict::Limited;
                }
                self.failed(peer, "", "HTTP takes Basic or Bearer");
                HttpVerdict::Denied
            }
        }
    }

    /// Checks the name and password that somebody signs in with.
    pub async fn check_sign_in(&self, peer: IpAddr, name: String, password: String) -> HttpVerdict {
        let users = self.users.load_full();
        match users.without_asking(peer) {
            Some(true) => HttpVerdict::Granted(None),
            Some(false) => HttpVerdict::Denied,
            None => self.check_login(peer, users, Some(name), password).await,
        }
    }

    /// A token for a session of that user; `None` if the user has no password or is no more what it was.
    pub fn session(&self, user: &User) -> Option<String> {
        let users = self.users.load();
        let now = users.named(&user.name)?;
        (now.password_hash == user.password_hash).then(|| self.sessions.make(now, SystemTime::now()))?
    }

    /// Checks a session's token. A wrong one is no failure: sessions end by themselves.
    pub fn check_session(&self, token: &str) -> Option<Renewed<Arc<User>>> {
        let users = self.users.load();
        if users.auth == Auth::None {
            return None;
        }
        self.sessions.check(token, |name| users.named(name).cloned(), SystemTime::now())
    }

    /// Checks a login password; without a name it may be any user's.
    async fn check_login(
        &self,
        peer: IpAddr,
        users: Arc<Users>,
        name: Option<String>,
        password: String,
    ) -> HttpVerdict {
        let generation = users.generation.to_string();
        let scheme = if name.is_some() { "basic" } else { "bearer" };
        let parts = [&generation, scheme, name.as_deref().unwrap_or_default(), &password];
        // Each under its own key.
        let (good, bad) = (self.good.hash(&parts), self.bad.hash(&parts));
        let known = || match (self.good.get(&good), self.bad.get(&bad)) {
            (Some(user), _) => Some(HttpVerdict::Granted(Some(user))),
            (None, Some(())) => Some(HttpVerdict::Denied),
            (None, None) if self.limiter.is_limited(peer) => Some(HttpVerdict::Limited),
            (None, None) => None,
        };
        if let Some(verdict) = known() {
            return verdict;
        }
        let (Ok(_place), true) = (self.queue.try_acquire(), password.len() <= password::MAX_PASSWORD) else {
            return HttpVerdict::Limited;
        };
        let Ok(_turn) = self.turn.acquire().await else { return HttpVerdict::Limited };
        // While we waited the same login may have been verified for another request, or this address gone too far.
        if let Some(verdict) = known() {
            return verdict;
        }
        let claimed = name.clone().unwrap_or_default();
        let found = tokio::task::spawn_blocking(move || verify(&users.list, name.as_deref(), &password)).await;
        match found {
            Ok(Some(user)) => {
                self.good.put(good, user.clone());
                HttpVerdict::Granted(Some(user))
            }
            Ok(None) => {
                self.bad.put(bad, ());
                self.failed(peer, &claimed, "HTTP takes the login password, not the stream_key");
                HttpVerdict::Denied
            }
            Err(error) => {
                tracing::error!(%error, "a login could not be verified");
                HttpVerdict::Denied
            }
        }
    }

    fn failed(&self, peer: IpAddr, name: &str, hint: &str) {
        self.limiter.failed(peer);
        let peer = peer.to_canonical();
        let name: String = name.chars().take(64).collect();
        if self.limiter.is_limited(peer) {
            tracing::warn!(%peer, user = ?name, "refused, and no longer heard for a while: too many failures");
        } else {
            tracing::warn!(%peer, user = ?name, "refused: wrong user name or password; {hint}");
        }
    }
}

/// The user whose password this is; without a name any user's.
fn verify(users: &[Arc<User>], name: Option<&str>, password: &str) -> Option<Arc<User>> {
    let fits =
        |user: &&Arc<User>| user.password_hash.as_ref().is_some_and(|hash| password::verify(password, hash.reveal()));
    let Some(name) = name else { return users.iter().find(fits).cloned() };
    let user = users.iter().find(|user| user.name == name && user.password_hash.is_some());
    if user.is_none() {
        password::verify(password, NOBODY);
    }
    user.filter(fits).cloned()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
