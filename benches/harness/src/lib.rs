//! What the benchmarks share: how processes are started and measured, and how results are written down.

pub mod child;
pub mod machine;
pub mod process;
pub mod rtsp;
pub mod table;
