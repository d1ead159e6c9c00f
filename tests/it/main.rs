//! The whole program against scripted and simulated devices, on loopback.

mod ingest;
mod support;
