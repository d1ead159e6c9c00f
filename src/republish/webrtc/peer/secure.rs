//! DTLS and the SRTP that it gives the keys for (RFC 5764).

use super::Identity;
use bytes::BytesMut;
use rtc::dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType};
use rtc::dtls::endpoint::{Endpoint, EndpointEvent};
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::shared::TransportProtocol;
use rtc::shared::error::{Error, Result};
use rtc::srtp::config::{Config, LABEL_EXTRACTOR_DTLS_SRTP};
use rtc::srtp::context::Context;
use rtc::srtp::option::{srtcp_replay_protection, srtp_replay_protection};
use rtc::srtp::protection_profile::ProtectionProfile;
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// DTLS runs on whatever path ICE has chosen, so its own addresses are only names.
const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
const THERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 2);
/// Packets that may arrive out of order and still be taken.
const REPLAY_WINDOW: usize = 64;
/// After this a flight that was not answered is sent again (RFC 6347 section 4.2.4.1 says a second; viewers are near).
const RETRANSMIT: Duration = Duration::from_millis(600);

/// What a DTLS datagram brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Media can be sent.
    Connected,
    /// The viewer has said goodbye.
    Closed,
}

/// The DTLS connection with a viewer, and its SRTP.
pub(crate) struct Secure {
    identity: Identity,
    endpoint: Endpoint,
    /// Taken when we begin the handshake; `None` also where the viewer begins it.
    begin: Option<Arc<rtc::dtls::config::HandshakeConfig>>,
    outgoing: Option<Context>,
    incoming: Option<Context>,
    /// Bytes taken before the handshake was complete.
    early: usize,
}

/// A handshake has about 4,000 bytes, and some of it comes twice. The library keeps what it cannot decrypt yet, all of it.
const MOST_EARLY: usize = 64 << 10;

impl fmt::Debug for Secure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secure").field("connected", &self.is_connected()).finish_non_exhaustive()
    }
}

impl Secure {
    /// A connection with the viewer whose certificate has one of those SHA-256 fingerprints; we begin the handshake if
    /// we are `active` (RFC 8842).
    ///
    /// # Errors
    /// What the library says of its settings, which is never expected.
    pub(crate) fn new(
        identity: &Identity,
        fingerprints: Vec<Vec<u8>>,
        active: bool,
    ) -> std::result::Result<Self, String> {
        let known = move |certificates: &[Vec<u8>], _: &[_]| -> Result<()> {
            let digest = certificates.first().map(Sha256::digest);
            match digest.is_some_and(|digest| fingerprints.iter().any(|known| known[..] == digest[..])) {
                true => Ok(()),
                false => Err(Error::ErrNoMatchingCertificateFingerprint),
            }
        };
        let config = ConfigBuilder::default()
            .with_crypto_provider(Arc::clone(&identity.provider))
            .with_certificates(vec![identity.certificate.clone()])
            .with_srtp_protection_profiles(vec![
                SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
                SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm,
                SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
            ])
            .with_client_auth(ClientAuthType::RequireAnyClientCert)
            // Certificates are self-made; the fingerprint is what counts (RFC 8827 section 6.5).
            .with_insecure_skip_verify(true)
            .with_verify_peer_certificate(Some(Arc::new(known)))
            .with_extended_master_secret(ExtendedMasterSecretType::Require)
            .with_flight_interval(RETRANSMIT)
            .with_server_name("viewer".to_owned())
            .build(active, None)
            .map_err(|error| error.to_string())?;
        let config = Arc::new(config);
        let (begin, server) = if active { (Some(config), None) } else { (None, Some(config)) };
        let endpoint = Endpoint::new(HERE, TransportProtocol::UDP, server);
        Ok(Self { identity: identity.clone(), endpoint, begin, outgoing: None, incoming: None, early: 0 })
    }

    /// Whether media can be sent.
    pub(crate) fn is_connected(&self) -> bool {
        self.outgoing.is_some()
    }

    /// There is a path: begins the handshake, once, if that is ours to do.
    pub(crate) fn begin(&mut self, now: Instant) {
        if let Some(config) = self.begin.take()
            && let Err(error) = self.endpoint.connect(now, THERE, config, None)
        {
            tracing::debug!(%error, "the DTLS handshake did not begin");
        }
    }

    /// Takes a datagram; what to send follows from [`Self::poll`].
    ///
    /// # Errors
    /// The handshake failed, in the library's words.
    pub(crate) fn receive(&mut self, datagram: &[u8], now: Instant) -> std::result::Result<Option<Event>, String> {
        if self.begin.is_some() {
            // Nobody may begin in our place.
            return Ok(None);
        }
        if !self.is_connected() {
            self.early += datagram.len();
            if self.early > MOST_EARLY {
                return Err("a handshake of too many bytes".to_owned());
            }
        }
        let events = match self.endpoint.read(now, THERE, None, BytesMut::from(datagram)) {
            Ok(events) => events,
            // Of a connection that is up, anybody can send garbage.
            Err(_) if self.is_connected() => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        for event in events {
            match event {
                EndpointEvent::HandshakeComplete => {
                    self.keys().map_err(|error| error.to_string())?;
                    return Ok(Some(Event::Connected));
                }
                EndpointEvent::PeerClosed => return Ok(Some(Event::Closed)),
                _ => {}
            }
        }
        Ok(None)
    }

    fn keys(&mut self) -> Result<()> {
        let state = self.endpoint.get_connection_state(THERE).ok_or(Error::ErrNoSuchSrtpProfile)?;
        let profile = match state.srtp_protection_profile() {
            SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => ProtectionProfile::AeadAes128Gcm,
            SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm => ProtectionProfile::AeadAes256Gcm,
            SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
            _ => return Err(Error::ErrNoSuchSrtpProfile),
        };
        let mut config = Config { profile, ..Config::default() };
        let material = state.export_keying_material(LABEL_EXTRACTOR_DTLS_SRTP, &[], config.keying_material_len())?;
        config.set_session_keys_from_keying_material(material.as_ref(), state.is_client())?;
        let crypto = self.identity.provider.crypto();
        let keys = &config.keys;
        let outgoing = Context::new(&keys.local_master_key, &keys.local_master_salt, profile, None, None, crypto)?;
        let incoming = Context::new(
            &keys.remote_master_key,
            &keys.remote_master_salt,
            profile,
            Some(srtp_replay_protection(REPLAY_WINDOW)),
            Some(srtcp_replay_protection(REPLAY_WINDOW)),
            crypto,
        )?;
        (self.outgoing, self.incoming) = (Some(outgoing), Some(incoming));
        Ok(())
    }

    /// The next datagram of the handshake to send.
    pub(crate) fn poll(&mut self) -> Option<BytesMut> {
        self.endpoint.poll_transmit().map(|transmit| transmit.message)
    }

    /// When [`Self::timeout`] is due.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.endpoint.poll_timeout(&THERE)
    }

    /// Sends again what was not answered.
    ///
    /// # Errors
    /// It was sent often enough.
    pub(crate) fn timeout(&mut self, now: Instant) -> std::result::Result<(), String> {
        match self.endpoint.poll_timeout(&THERE) {
            Some(due) if due <= now => self.endpoint.handle_timeout(THERE, now).map_err(|error| error.to_string()),
            _ => Ok(()),
        }
    }

    /// Says goodbye, by what [`Self::poll`] gives.
    pub(crate) fn close(&mut self, now: Instant) {
        // Without a connection there is nobody to tell.
        let _ = self.endpoint.close(now);
    }

    /// An RTP packet, encrypted; `None` before the handshake.
    pub(crate) fn protect(&mut self, packet: &[u8]) -> Option<BytesMut> {
        self.outgoing.as_mut()?.encrypt_rtp(packet).ok()
    }

    /// A compound RTCP packet, encrypted; `None` before the handshake.
    pub(crate) fn protect_rtcp(&mut self, packet: &[u8]) -> Option<BytesMut> {
        self.outgoing.as_mut()?.encrypt_rtcp(packet).ok()
    }

    /// An RTCP packet of the viewer; `None` if it is not one, or not the viewer's.
    pub(crate) fn unprotect_rtcp(&mut self, datagram: &[u8]) -> Option<BytesMut> {
        // RFC 5761 section 4: RTCP has packet types 192 to 223 where RTP has a marker and a payload type. SRTCP has an
        // eight-byte header, an index and a tag.
        let is_rtcp = datagram.len() >= 8 + 4 + 10 && datagram.get(1).is_some_and(|kind| (192..=223).contains(kind));
        if !is_rtcp {
            return None;
        }
        self.incoming.as_mut()?.decrypt_rtcp(datagram).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(identity: &Identity) -> Vec<u8> {
        Sha256::digest(identity.certificate.certificate[0].as_ref()).to_vec()
    }

    /// Hands datagrams to and fro until neither has more or somebody gives up; answers what came of it on both sides.
    fn talk(one: &mut Secure, other: &mut Secure) -> (Vec<Event>, Vec<String>) {
        let (now, mut events, mut errors) = (Instant::now(), Vec::new(), Vec::new());
        one.begin(now);
        other.begin(now);
        for _ in 0..20 {
            let mut quiet = true;
            for turn in 0..2 {
                let (from, to) = if turn == 0 { (&mut *one, &mut *other) } else { (&mut *other, &mut *one) };
                while let Some(datagram) = from.poll() {
                    quiet = false;
                    match to.receive(&datagram, now) {
                        Ok(event) => events.extend(event),
                        Err(error) => errors.push(error),
                    }
                }
            }
            if quiet || !errors.is_empty() || events.contains(&Event::Closed) {
                break;
            }
        }
        (events, errors)
    }

    fn pair(known: &[bool; 2]) -> (Secure, Secure) {
        let (ours, theirs) = (Identity::new().unwrap(), Identity::new().unwrap());
        let expected = |known: bool, identity: &Identity| vec![if known { digest(identity) } else { vec![0; 32] }];
        let active = Secure::new(&ours, expected(known[0], &theirs), true).unwrap();
        (active, Secure::new(&theirs, expected(known[1], &ours), false).unwrap())
    }

    #[test]
    fn two_that_know_each_other_connect_and_read_each_others_packets() {
        let (mut one, mut other) = pair(&[true, true]);
        assert!(one.protect(&[0x80; 40]).is_none());
        let (events, errors) = talk(&mut one, &mut other);
        assert_eq!((&events[..], errors.len()), (&[Event::Connected, Event::Connected][..], 0));
        let report = crate::republish::rtp::bye(7);
        let packet = one.protect_rtcp(&report).unwrap();
        assert_ne!(packet[..8 + 4], report[..8 + 4]);
        assert_eq!(other.unprotect_rtcp(&packet).unwrap(), report);
        assert!(other.unprotect_rtcp(&packet).is_none(), "once is enough");
        // The same packet again is the same bytes: that is what sending again is.
        let media = [&[0x80, 102, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7][..], &[5; 100]].concat();
        assert_eq!(one.protect(&media).unwrap(), one.protect(&media).unwrap());
        one.close(Instant::now());
        assert_eq!(talk(&mut one, &mut other).0, [Event::Closed]);
    }

    #[test]
    fn a_certificate_that_was_not_announced_is_refused() {
        for known in [[false, true], [true, false]] {
            let (mut one, mut other) = pair(&known);
            let (events, errors) = talk(&mut one, &mut other);
            assert!(!errors.is_empty(), "{events:?}");
            assert!(!(one.is_connected() && other.is_connected()));
        }
    }

    #[test]
    fn garbage_is_no_packet_and_ends_nothing() {
        let (mut one, mut other) = pair(&[true, true]);
        talk(&mut one, &mut other);
        for garbage in [&[][..], &[22], &[22, 254, 253, 0, 0], &[23; 60], &[0x80, 200, 0, 0]] {
            assert_eq!(one.receive(garbage, Instant::now()), Ok(None));
            assert!(one.unprotect_rtcp(garbage).is_none());
        }
        assert!(one.is_connected());
    }
}
