//! Where devices that call us come in. One for the program; each such family adds its door.

use super::{mini_doorbell, push};

/// The doors of all families that have one.
#[derive(Debug, Default)]
pub struct Doors {
    /// Bells that upload their visitors' pictures.
    pub bells: mini_doorbell::Bells,
    /// Pictures that are pushed by HTTP and FTP.
    pub pushes: push::Pushes,
}
