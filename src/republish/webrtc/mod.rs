//! WebRTC: viewers in browsers, all on one port.

mod fragment;
mod offer;
mod plan;

pub use fragment::{Fragment, FragmentError, MAX_FRAGMENT};
pub use offer::{IceCredentials, MAX_OFFER, Offer, OfferError, OfferedCodec, Section};
pub use plan::{Lane, LaneSource, NoCommonCodec, Plan, plan, settle};

use crate::access::{Access, User};
use crate::bus::Device;
use crate::config::{Host, Secret};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// An address that viewers are told to try, besides what this machine knows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The address, or a name that is looked up.
    pub host: Host,
    /// The port; without one, the port that is listened on.
    pub port: Option<u16>,
}

/// A STUN or TURN server for viewers; we use none ourselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceServer {
    /// URLs as in RFC 7064 and RFC 7065: `stun:HOST[:PORT]`, `turn:HOST[:PORT][?transport=…]`, `turns:…`.
    pub urls: Vec<String>,
    /// The user name for TURN.
    pub username: Option<String>,
    /// The password for TURN.
    pub credential: Option<Secret>,
}

/// What can be set.
#[derive(Clone, Debug)]
pub struct Options {
    /// Addresses that viewers are told besides ours.
    pub candidates: Vec<Candidate>,
    /// Servers that viewers are told.
    pub ice_servers: Vec<IceServer>,
    /// The most viewers at once.
    pub viewers: usize,
    /// The most viewers at once from one address.
    pub per_address: usize,
    /// How long a viewer may take until ICE and DTLS are up.
    pub connect_within: Duration,
    /// How long a viewer may be silent before it counts as gone.
    pub silent_after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            candidates: Vec::new(),
            ice_servers: Vec::new(),
            viewers: 1_024,
            per_address: 256,
            connect_within: Duration::from_secs(10),
            silent_after: Duration::from_secs(4),
        }
    }
}

/// Running totals since the start, and what is now.
#[derive(Debug, Default)]
pub struct Statistics {
    /// Sessions now, connected or not.
    pub sessions: AtomicUsize,
    /// Viewers that were connected.
    pub viewers: AtomicU64,
    /// RTP packets sent, retransmissions included.
    pub packets: AtomicU64,
    /// RTP packets sent again because a viewer missed them.
    pub retransmitted: AtomicU64,
    /// Pictures left out for viewers that were late.
    pub dropped: AtomicU64,
    /// Packets that viewers reported as lost.
    pub lost: AtomicU64,
}

/// Why an address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {protocol} {address}: {source}")]
pub struct BindError {
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
    /// The address.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// As many viewers as there may be.
    #[error("there are {0} viewers already, as many as are served at once")]
    Full(usize),
    /// As many viewers from that address as there may be.
    #[error("there are {0} viewers from this address already, as many as are served at once")]
    PerAddress(usize),
    /// The offer cannot be answered.
    #[error("the offer cannot be answered: {0}")]
    Bad(String),
}

/// Why ICE was not restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestartError {
    /// The session is over.
    #[error("the session is over")]
    Closed,
    /// The credentials cannot be used.
    #[error("the ICE credentials cannot be used")]
    Bad,
}

/// The server with its sockets bound.
#[derive(Debug)]
pub struct Server {
    options: Options,
    statistics: Arc<Statistics>,
}

impl Server {
    /// Binds a UDP socket and a TCP listener of one number for each address; port 0 is any, the same for both. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`] with the first address that is taken.
    pub fn bind(listen: &[SocketAddr], options: Options) -> Result<Arc<Self>, BindError> {
        let _ = listen;
        Ok(Arc::new(Self { options, statistics: Arc::default() }))
    }

    /// The addresses really bound, in the order given.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        Vec::new()
    }

    /// Totals that go on counting while the server runs.
    pub fn statistics(&self) -> Arc<Statistics> {
        Arc::clone(&self.statistics)
    }

    /// The STUN and TURN servers that viewers are told.
    pub fn ice_servers(&self) -> Arc<[IceServer]> {
        self.options.ice_servers.clone().into()
    }

    /// Serves until cancelled, then says goodbye to all viewers and returns.
    pub async fn serve(self: Arc<Self>, access: Arc<Access>, cancel: CancellationToken) {
        let _ = access;
        cancel.cancelled().await;
    }

    /// A session for that offer. Answers at once; media flows when ICE and DTLS are up and the sources are ready.
    ///
    /// # Errors
    /// [`CreateError`] says why not.
    pub fn create(
        &self,
        offer: &Offer,
        plan: Plan,
        device: Arc<Device>,
        peer: IpAddr,
        user: Option<Arc<User>>,
    ) -> Result<Session, CreateError> {
        let _ = (offer, plan, device, peer, user);
        Err(CreateError::Full(0))
    }
}

/// A viewer's session. Clones are the same session; dropping them all does not end it.
#[derive(Clone, Debug)]
pub struct Session {
    answer: Arc<str>,
    closed: CancellationToken,
}

impl Session {
    /// The SDP answer.
    pub fn answer(&self) -> &str {
        &self.answer
    }

    /// Takes more candidates of the viewer; unknown kinds are skipped.
    pub fn trickle(&self, candidates: &[String]) {
        let _ = candidates;
    }

    /// Restarts ICE with the viewer's new credentials; answers ours and our candidates.
    ///
    /// # Errors
    /// [`RestartError`] says why not.
    pub async fn restart(&self, ice: &IceCredentials) -> Result<Fragment, RestartError> {
        let _ = ice;
        Err(RestartError::Closed)
    }

    /// Ends the session and tells the viewer.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Cancelled when the session is over, for whatever reason.
    pub fn closed(&self) -> CancellationToken {
        self.closed.clone()
    }
}
