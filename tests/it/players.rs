//! Real players and recorders against the whole gateway: ffmpeg, ffprobe, GStreamer and retina play what simulated
//! cameras send it. What takes minutes is ignored here and part of `make soak`.

mod demo;
pub(crate) mod footage;
mod grey;
mod h265;
mod house;
mod joins;
mod late;
mod order;
mod recorders;
mod screen;
mod timing;
pub(crate) mod tool;
mod udp;
mod whep_clients;
