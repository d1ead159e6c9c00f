//! ICE as a lite agent (RFC 8445 section 2.5): the viewer checks, we answer and follow what it nominates.

#![deny(clippy::indexing_slicing)]

use super::Identity;
use crate::republish::webrtc::IceCredentials;
use crate::republish::webrtc::mux::Path;
use rand::distr::{Alphanumeric, SampleString};
use rtc::stun::attributes::{ATTR_ICE_CONTROLLED, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME, AttrType};
use rtc::stun::error_code::ErrorCodeAttribute;
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{
    BINDING_ERROR, BINDING_REQUEST, BINDING_SUCCESS, CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, METHOD_BINDING, Message,
    Setter, TransactionId,
};
use rtc::stun::xoraddr::XorMappedAddress;
use std::time::{Duration, Instant};

/// A path of less priority is followed once the one in use was not nominated for this long: some viewers nominate every
/// path and mean the best one, others move (inferred; Chromium nominates the one that it uses).
const SETTLED: Duration = Duration::from_millis(900);
/// The longest STUN message that is read.
const LONGEST: usize = 1_500;
/// Attribute types at the wire (RFC 8489, RFC 8445).
const USERNAME: u16 = 0x0006;

/// Random credentials, more than RFC 8445 section 5.3 asks for.
pub(crate) fn new_credentials() -> IceCredentials {
    let text = |length| Alphanumeric.sample_string(&mut rand::rng(), length);
    IceCredentials { ufrag: text(12), pwd: text(28) }
}

/// Our fragment in the USERNAME of a binding request: what stands before the colon. Allocates nothing and trusts
/// nothing, because it is called for whatever arrives.
pub(crate) fn fragment_of(datagram: &[u8]) -> Option<&str> {
    let (header, mut rest) = datagram.split_first_chunk::<20>()?;
    let [0, 1, _, _, 0x21, 0x12, 0xa4, 0x42, ..] = header else { return None };
    for _ in 0..16 {
        let ([kind @ .., high, low], after) = rest.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let value = after.get(..length)?;
        if u16::from_be_bytes(*kind) == USERNAME {
            return std::str::from_utf8(value).ok()?.split_once(':').map(|(ours, _)| ours);
        }
        rest = after.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// What became of a STUN message.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    /// What to send back on the path that it came on.
    pub(crate) reply: Option<Vec<u8>>,
    /// It was the viewer indeed: its path may be used.
    pub(crate) authentic: bool,
    /// The path in use has changed.
    pub(crate) selected: bool,
}

#[derive(Debug)]
struct Nominated {
    path: Path,
    priority: u32,
    at: Instant,
}

/// One side of an ICE session.
#[derive(Debug)]
pub(crate) struct Ice {
    identity: Identity,
    local: IceCredentials,
    remote: IceCredentials,
    /// Of before a restart: valid until the new ones were used.
    before: Option<(IceCredentials, IceCredentials)>,
    selected: Option<Nominated>,
    probe: Option<TransactionId>,
}

impl Ice {
    /// A session that waits for checks.
    pub(crate) fn new(identity: Identity, local: IceCredentials, remote: IceCredentials) -> Self {
        Self { identity, local, remote, before: None, selected: None, probe: None }
    }

    /// The credentials that we are checked with.
    pub(crate) fn local(&self) -> &IceCredentials {
        &self.local
    }

    /// The path in use.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.selected.as_ref().map(|selected| &selected.path)
    }

    /// Goes over to new credentials; the path stays until another is nominated.
    pub(crate) fn restart(&mut self, local: IceCredentials, remote: IceCredentials) {
        let local = std::mem::replace(&mut self.local, local);
        let remote = std::mem::replace(&mut self.remote, remote);
        self.before = Some((local, remote));
    }

    /// The path is of no use any more.
    pub(crate) fn lost(&mut self, path: &Path) {
        if self.path() == Some(path) {
            self.selected = None;
        }
    }

    /// Takes what came in on a path.
    pub(crate) fn receive(&mut self, datagram: &[u8], path: &Path, now: Instant) -> Answered {
        let nothing = Answered::default();
        if datagram.len() > LONGEST {
            return nothing;
        }
        let mut message = Message { raw: datagram.to_vec(), ..Message::default() };
        if message.decode().is_err() || message.typ.method != METHOD_BINDING {
            return nothing;
        }
        if message.typ.class == CLASS_SUCCESS_RESPONSE {
            let ours = self.probe.is_some_and(|probe| probe == message.transaction_id);
            let authentic = ours && self.is_authentic(&mut message, &self.remote.pwd);
            return Answered { authentic, ..nothing };
        }
        if message.typ.class != CLASS_REQUEST {
            return nothing;
        }
        let name = text(&message, ATTR_USERNAME);
        let is = |(local, remote): (&IceCredentials, &IceCredentials)| {
            name.as_deref().and_then(|name| name.split_once(':')) == Some((&local.ufrag, &remote.ufrag))
        };
        let renewed = is((&self.local, &self.remote));
        let pwd = match &self.before {
            _ if renewed => self.local.pwd.clone(),
            Some((local, remote)) if is((local, remote)) => local.pwd.clone(),
            _ => return nothing,
        };
        if !self.is_authentic(&mut message, &pwd) {
            return nothing;
        }
        if message.contains(ATTR_ICE_CONTROLLED) {
            // A lite agent is always the controlled one (RFC 8445 section 6.1.1).
            let conflict = ErrorCodeAttribute {
                code: rtc::stun::error_code::CODE_ROLE_CONFLICT,
                reason: b"Role Conflict".to_vec(),
            };
            let reply = self.reply(&message, &pwd, &[&BINDING_ERROR, &conflict]);
            return Answered { reply, authentic: true, selected: false };
        }
        let address = path.remote();
        let mapped = XorMappedAddress { ip: address.ip(), port: address.port() };
        let reply = self.reply(&message, &pwd, &[&BINDING_SUCCESS, &mapped]);
        let selected = message.contains(ATTR_USE_CANDIDATE) && self.nominate(&message, path, renewed, now);
        Answered { reply, authentic: true, selected }
    }

    /// Follows a nomination; answers whether the path in use is another now.
    fn nominate(&mut self, message: &Message, path: &Path, renewed: bool, now: Instant) -> bool {
        let priority =
            message.get(ATTR_PRIORITY).ok().and_then(|value| value.try_into().ok()).map_or(0, u32::from_be_bytes);
        if renewed && self.before.take().is_some() {
            // What was nominated before a restart says nothing about after it.
            if let Some(selected) = &mut self.selected {
                selected.priority = 0;
            }
        }
        let nominated = Nominated { path: path.clone(), priority, at: now };
        match &mut self.selected {
            Some(selected) if selected.path == nominated.path => {
                selected.at = now;
                selected.priority = priority;
                false
            }
            Some(selected) if priority < selected.priority && now.saturating_duration_since(selected.at) < SETTLED => {
                false
            }
            _ => {
                self.selected = Some(nominated);
                true
            }
        }
    }

    /// A check of ours on the path in use. A lite agent sends none to find a path; this one asks a viewer that was
    /// silent whether it is still there, which every full agent answers.
    pub(crate) fn probe(&mut self) -> Option<(Path, Vec<u8>)> {
        let path = self.path()?.clone();
        let id = TransactionId::new();
        let mut message = Message::new();
        message.write_header();
        let name =
            rtc::stun::textattrs::Username::new(ATTR_USERNAME, format!("{}:{}", self.remote.ufrag, self.local.ufrag));
        let integrity = MessageIntegrity::new_short_term_integrity_with_provider(
            self.remote.pwd.clone(),
            self.identity.provider.crypto(),
        );
        let setters: [&dyn Setter; 5] = [&BINDING_REQUEST, &id, &name, &Controlled, &integrity];
        setters.iter().try_for_each(|setter| setter.add_to(&mut message)).ok()?;
        FINGERPRINT.add_to(&mut message).ok()?;
        self.probe = Some(id);
        Some((path, message.raw))
    }

    fn is_authentic(&self, message: &mut Message, pwd: &str) -> bool {
        MessageIntegrity::check(message, pwd.as_bytes(), self.identity.provider.crypto()).is_ok()
    }

    fn reply(&self, request: &Message, pwd: &str, setters: &[&dyn Setter]) -> Option<Vec<u8>> {
        let mut message = Message::new();
        message.write_header();
        let integrity =
            MessageIntegrity::new_short_term_integrity_with_provider(pwd.to_owned(), self.identity.provider.crypto());
        request.add_to(&mut message).ok()?;
        for setter in setters {
            setter.add_to(&mut message).ok()?;
        }
        integrity.add_to(&mut message).ok()?;
        FINGERPRINT.add_to(&mut message).ok()?;
        Some(message.raw)
    }
}

/// ICE-CONTROLLED with a tie-breaker, which nobody compares because we never control.
struct Controlled;

impl Setter for Controlled {
    fn add_to(&self, message: &mut Message) -> rtc::shared::error::Result<()> {
        message.add(ATTR_PRIORITY, &0x6e00_01ff_u32.to_be_bytes());
        message.add(ATTR_ICE_CONTROLLED, &rand::random::<u64>().to_be_bytes());
        Ok(())
    }
}

fn text(message: &Message, attribute: AttrType) -> Option<String> {
    message.get(attribute).ok().and_then(|value| String::from_utf8(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::republish::udp::Socket;
    use rtc::stun::attributes::ATTR_XORMAPPED_ADDRESS;
    use rtc::stun::message::CLASS_ERROR_RESPONSE;
    use std::sync::Arc;

    fn path(port: u16) -> Path {
        let socket = Arc::new(Socket::bind("127.0.0.1:0".parse().unwrap()).unwrap());
        Path::Udp { socket, remote: ([192, 0, 2, 1], port).into(), local: None }
    }

    fn viewers() -> IceCredentials {
        IceCredentials { ufrag: "view".into(), pwd: "viewers-password-of-22".into() }
    }

    fn ice() -> Ice {
        Ice::new(Identity::new().unwrap(), new_credentials(), viewers())
    }

    fn check(ice: &Ice, name: &str, pwd: &str, more: &[(AttrType, &[u8])]) -> Vec<u8> {
        let mut message = Message::new();
        message.write_header();
        BINDING_REQUEST.add_to(&mut message).unwrap();
        TransactionId::new().add_to(&mut message).unwrap();
        message.add(ATTR_USERNAME, name.as_bytes());
        for (attribute, value) in more {
            message.add(*attribute, value);
        }
        let crypto = ice.identity.provider.crypto();
        let integrity = MessageIntegrity::new_short_term_integrity_with_provider(pwd.to_owned(), crypto);
        integrity.add_to(&mut message).unwrap();
        message.raw
    }

    fn good(ice: &Ice, more: &[(AttrType, &[u8])]) -> Vec<u8> {
        check(ice, &format!("{}:view", ice.local.ufrag), &ice.local.pwd.clone(), more)
    }

    fn nominating(ice: &Ice, priority: u32) -> Vec<u8> {
        good(ice, &[(ATTR_USE_CANDIDATE, &[]), (ATTR_PRIORITY, &priority.to_be_bytes())])
    }

    #[tokio::test]
    async fn checks_are_answered_with_the_address_they_came_from() {
        let (mut ice, path, now) = (ice(), path(4_000), Instant::now());
        let request = good(&ice, &[]);
        assert_eq!(fragment_of(&request), Some(ice.local.ufrag.as_str()));
        let answered = ice.receive(&request, &path, now);
        assert!(answered.authentic && !answered.selected && ice.path().is_none());
        let mut reply = Message { raw: answered.reply.unwrap(), ..Message::default() };
        reply.decode().unwrap();
        assert_eq!((reply.typ.class, &reply.raw[8..20]), (CLASS_SUCCESS_RESPONSE, &request[8..20]));
        assert!(reply.contains(ATTR_XORMAPPED_ADDRESS) && ice.is_authentic(&mut reply, &ice.local.pwd));
    }

    #[tokio::test]
    async fn what_is_not_the_viewer_gets_nothing() {
        let (mut ice, path, now) = (ice(), path(4_000), Instant::now());
        let (ufrag, pwd) = (ice.local.ufrag.clone(), ice.local.pwd.clone());
        let wrong = [
            check(&ice, &format!("{ufrag}:view"), "another-password-of-22", &[]),
            check(&ice, &format!("{ufrag}:other"), &pwd, &[]),
            check(&ice, "other:view", &pwd, &[]),
            check(&ice, &ufrag, &pwd, &[]),
            vec![0, 1, 0, 0],
            vec![0; 2_000],
        ];
        for request in wrong {
            let answered = ice.receive(&request, &path, now);
            assert!(!answered.authentic && answered.reply.is_none(), "{request:?}");
        }
        for cut in 0..good(&ice, &[]).len() {
            let request = good(&ice, &[]);
            assert!(!ice.receive(&request[..cut], &path, now).authentic);
            let _ = fragment_of(&request[..cut]);
        }
    }

    #[tokio::test]
    async fn the_best_nominated_path_is_followed_and_another_once_it_falls_silent() {
        let (mut ice, now) = (ice(), Instant::now());
        let (udp, better, worse) = (path(1), path(2), path(3));
        assert!(ice.receive(&nominating(&ice, 100), &udp, now).selected);
        assert!(!ice.receive(&nominating(&ice, 100), &udp, now).selected);
        assert!(ice.receive(&nominating(&ice, 200), &better, now).selected);
        assert!(!ice.receive(&nominating(&ice, 50), &worse, now).selected, "every path is nominated by some");
        assert_eq!(ice.path(), Some(&better));
        assert!(ice.receive(&nominating(&ice, 50), &worse, now + SETTLED).selected, "others move");
        ice.lost(&worse);
        assert_eq!(ice.path(), None);
    }

    #[tokio::test]
    async fn a_restart_keeps_the_path_until_another_is_nominated_and_the_old_name_until_then() {
        let (mut ice, now) = (ice(), Instant::now());
        let (first, second) = (path(1), path(2));
        ice.receive(&nominating(&ice, 100), &first, now);
        let old = good(&ice, &[]);
        ice.restart(new_credentials(), viewers());
        assert!(ice.receive(&old, &first, now).authentic);
        assert_eq!(ice.path(), Some(&first));
        assert!(ice.receive(&nominating(&ice, 10), &second, now).selected, "priorities of before do not count");
        assert!(!ice.receive(&old, &first, now).authentic);
    }

    #[tokio::test]
    async fn a_viewer_that_wants_to_be_controlled_is_told_of_the_conflict() {
        let (mut ice, path, now) = (ice(), path(4_000), Instant::now());
        let request = good(&ice, &[(ATTR_ICE_CONTROLLED, &[0; 8])]);
        let mut reply = Message { raw: ice.receive(&request, &path, now).reply.unwrap(), ..Message::default() };
        reply.decode().unwrap();
        assert_eq!(reply.typ.class, CLASS_ERROR_RESPONSE);
    }

    proptest::proptest! {
        #[test]
        fn names_are_read_from_anything_without_a_panic(datagram: Vec<u8>) {
            let _ = fragment_of(&datagram);
        }
    }
}
