//! Our RTSP server (RFC 2326): any number of viewers on packets that are made once.
//!
//! ```text
//! connection.rs  a task per connection reads requests ── PLAY ─► viewer.rs  slow lane: start burst, late viewers
//!                                                                    │ level ▲ late
//! rtp::Feed  ring of ready packets ─────────────────────────────► shard.rs  one write per viewer and picture
//! ```
//!
//! What players need of it, each from their behaviour or their users' bug reports:
//!
//! | point | behaviour |
//! |-------|-----------|
//! | transports | TCP interleaved on the client's channels and UDP unicast; 461 only for what is really off |
//! | OPTIONS | answered before authentication, VLC decides its keepalive from it |
//! | not ready | DESCRIBE is held until the first key picture, at most 8 s, then 503; 404 only for unknown names |
//! | JPEG cameras | H.264 by the rendition that all viewers share; `?video=copy` their own pictures, 406 over 2040 pixels |
//! | refusals | say why in the status line, which ffmpeg and GStreamer log |
//! | numbers | RTP-Info is exact; a sender report of each track goes before its first packet |
//! | slow viewers | lose whole pictures and go on at a key picture |
//! | dead viewers | TCP: gone with the socket or after 45 s without a byte taken; UDP: after 60 s without a sign of life |

mod connection;
mod form;
mod message;
mod output;
mod sdp;
mod server;
mod shard;
mod target;
mod transport;
mod tunnel;
mod udp;
mod viewer;

pub use message::{BadRequest, Incoming, MAX_BODY, MAX_HEAD, Request, RequestReader, Response, Status};
pub use sdp::{SdpError, describe};
pub use server::{Options, Server, Statistics};
pub use target::{StartOption, Target};
pub use transport::{Transport, choose};
