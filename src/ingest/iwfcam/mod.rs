//! IWFCam cameras: MJPEG over UDP, sold as A9-like spy cameras, pens, clocks and microscopes for the app *IWFCam*.
//!
//! The camera listens on two UDP ports: 10104 for searches, and one that its answer to a search names, mostly 17900, for
//! everything else. Nothing is encrypted; what lets a client in is a token of 12 characters that never changes.
//!
//! 1. **Search** (`1TEG` 0x0b), to the camera's address or broadcast. The answer names its UID and the media port.
//! 2. **Login** (`1TEG` 0x0d) with the client's own address and port in it: media goes to what is *written* there. The
//!    answer gives a session number, or refuses: with the wrong ids (it names the right ones: once more with these), as
//!    all places are taken, or for the token.
//! 3. **Live** (`2TEG` 0x01, control id 0) starts pictures and sound. It is repeated every 2 s: a camera that hears
//!    nothing for 6 s drops the client.
//! 4. **Media** (`2TEG` 0x03): JPEG pictures in numbered pieces of about 1 kB, and blocks of ADPCM.
//! 5. **Goodbye**: live with no bits, then close (control id 3), so that the place is free at once.
//!
//! The camera is slow to read its socket and misses commands, so each is sent twice and repeated until it is answered;
//! all of them can be repeated without harm. [`wire`] has every byte and where each fact comes from, [`reassembly`] how
//! pieces become pictures, [`Iwfcam`] who says what when.
//!
//! **Restarts.** A camera whose client vanished keeps its place for 6 s; the next client gets the second place, or none
//! where there is one only. So a session says goodbye; it binds the same local port as the one before ([`Memory`], or at
//! first a port worked out from the camera's name), by which the camera knows its client again; and it closes the
//! session before by its number before it logs in.
//!
//! **What is never sent**: anything to the vendor's cloud, and every control command but live, heartbeat and close.
//! [`wire::policy`] lists what cameras would do otherwise: read the neighbours' Wi-Fi, format cards, run commands.
//!
//! **The camera calls home.** Its log line says so once: addresses change, so the only safe rule in a router is that the
//! camera may not reach the internet at all. Names seen (captures by two authors, 2024 and 2025): [`CLOUD_NAMES`], on
//! UDP ports [`CLOUD_PORTS`].
//!
//! H.264 models of the family use the same transport. They are recognised by their first picture and refused in words.

mod clock;
mod config;
mod discover;
pub mod reassembly;
mod receiver;
mod repair;
mod session;
mod sound;
#[cfg(test)]
mod tests;
pub mod wire;

pub use config::{Config, Retransmission};
pub use discover::{Found, discover};
pub use session::{Iwfcam, Memory};

/// Names that cameras of this family look up to call home.
pub const CLOUD_NAMES: [&str; 2] = ["cloud.ismartol.com", "esn-cam.oss-cn-qingdao.aliyuncs.com"];
/// UDP ports that they call there.
pub const CLOUD_PORTS: [u16; 2] = [10_101, 10_102];
