//! Real players and recorders against the whole gateway: ffmpeg, ffprobe, GStreamer and retina play what simulated
//! cameras send it. What takes minutes is in `benches/soak`.

mod demo;
mod footage;
mod house;
mod order;
mod recorders;
mod timing;
mod tool;
