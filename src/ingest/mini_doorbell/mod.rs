//! GuoGee and ELLE "Mini Doorbell": a button that pushes one JPEG a visitor to a server, which we are.
//!
//! Sold about 2016 to 2018 under many names (apps "Mini Doorbells", VStarcam "Doorcam"). The base unit in the house opens
//! a TCP connection to port 39090, writes a [header](wire) and the picture, and closes. The server never answers. A server
//! that closes first, while the unit still sends, wedges the unit until it is power-cycled (firmware 1.3.0, read), so what
//! is not wanted is read to the end and thrown away, or the connection is reset.
//!
//! Sources: `door_bell_server.c` of a user with a real unit; firmware 1.3.0, whose header routine was executed; the
//! vendor's Android source for the names of fields. A capture of a real unit is not known.
//!
//! An upload goes [bytes to upload](upload) to [visit](visits), through the [door](Bells) to the cameras that name the
//! bell, else to those that name none; [`Server`] does the rest. Over UDP the units can be [found](discover), told where to
//! upload to, and heard; that side is off unless the configuration names it.

mod adapter;
mod config;
mod datagrams;
mod door;
mod picture;
mod routes;
mod server;
#[cfg(test)]
mod tests;
pub mod upload;
pub mod visits;
pub mod wire;

pub use adapter::MiniDoorbell;
pub use config::Config;
pub use datagrams::{CONTROL_PORT, Found, PRESENCE_PORT, discover};
pub use door::{Bells, Stranger};
pub(super) use routes::routes;
pub use server::{Options, Server};
pub use wire::BellId;

/// The TCP port that the units call.
pub const PORT: u16 = 39_090;
