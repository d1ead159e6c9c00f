//! Fanlight opens each doorbell or camera once and gives its picture to everyone.
//!
//! ```text
//!  devices            ingest/               bus/                   republish/         viewers
//!  RTSP cameras  ──►  rtsp/  ──AccessUnit──► one ring per track ──► rtsp/  one server ──► VLC, Frigate, Blue Iris
//!       ▲                    ──Event───────► + events           ──► webrtc/  WHEP     ──► browser (web/)
//!       │                                        ▲  │            ──► http/  pages, stills, MJPEG, states, metrics
//!       │                                        │  ▼
//!       │                                    transcode/  reads a track, publishes one in another codec
//!       └──── Command ◄───── supervisor ◄──── commands     ◄─────── http/
//! ```
//!
//! Dependencies point one way: [`media`] knows nobody, [`bus`] knows `media`; [`ingest`] and [`republish`] know the
//! bus and never each other. [`transcode`] turns a track into one of another codec while somebody wants it, in child
//! processes. [`app`] joins them according to [`config`]; [`access`] says who may;
//! [`simulate`] plays every device on loopback.
//!
//! Words, each with one meaning: a **device** is one box, one entry of the configuration; a **stream** is a set of
//! tracks on a shared timeline, and also the RTSP path (`porch`, `porch/sub`); a **track** is one codec and clock; an
//! **access unit** is one coded picture or audio frame (ISO/IEC 14496-1); a **random access unit** is where a decoder
//! may start; a **GOP** runs from one of those to the next.

pub mod access;
pub mod app;
pub mod bus;
pub mod config;
pub mod ingest;
pub mod media;
pub mod republish;
pub mod simulate;
pub mod transcode;
