//! Real players and recorders against the whole gateway: ffmpeg, ffprobe, GStreamer and retina play what simulated
//! cameras send it. What takes minutes is ignored here and part of `make soak`.

mod demo;
mod footage;
mod grey;
mod h265;
mod house;
mod joins;
mod late;
mod order;
mod recorders;
mod screen;
mod timing;
mod tool;
mod udp;
mod whep_clients;
