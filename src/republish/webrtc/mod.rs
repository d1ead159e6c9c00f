//! WebRTC viewers: browsers, all on one port.
//!
//! ```text
//! http/whep.rs ── offer.rs, plan.rs ─► server.rs  create: a Session and its task
//!                                         │
//! one UDP socket, one TCP listener ─► mux.rs, tcp.rs  by user fragment, then by address
//!                                         │ datagrams
//!                                     viewer.rs  a task per viewer ◄── peer.rs  ICE-lite, DTLS, SRTP, without I/O
//!                                         │
//! rtp::Feed  ring of ready packets ─► cursor.rs  where the viewer is in it; numbers of its own
//!                                         │
//!                                     output.rs  one send call per picture, paced
//! ```
//!
//! | point | behaviour |
//! |-------|-----------|
//! | start | the cached key picture and what follows it, time stamps squeezed to the live edge, spread so that none is lost |
//! | late viewers | lose whole pictures and go on at a key picture, without a gap in the numbers |
//! | lost packets | sent again, byte for byte, as long as the ring has them (RFC 4585) |
//! | key picture wanted | asked of the encoder; a camera's own pictures cannot be asked for, so the next one is waited for |
//! | silent viewers | asked after a second, gone after four; a goodbye by DTLS or RTCP counts at once |

mod answer;
mod candidates;
mod cursor;
mod fragment;
mod mux;
mod offer;
mod output;
mod peer;
mod plan;
mod server;
mod session;
mod tcp;
mod viewer;

pub use fragment::{Fragment, FragmentError, MAX_FRAGMENT};
pub use offer::{IceCredentials, MAX_OFFER, Offer, OfferError, OfferedCodec, Section};
pub use plan::{Lane, LaneSource, NoCommonCodec, Plan, plan, settle};
pub use server::{CreateError, Options, Server, Statistics};
pub use session::{RestartError, Session};

pub use crate::config::{Candidate, IceServer};
