//! Where devices that call us come in. One for the program; each such family adds its door.

use super::{mini_doorbell, push};
use crate::bus::Bus;
use axum::Router;
use std::sync::Arc;

/// The doors of all families that have one.
#[derive(Debug, Default)]
pub struct Doors {
    /// Bells that upload their visitors' pictures.
    pub bells: mini_doorbell::Bells,
    /// Pictures that are pushed by HTTP and FTP.
    pub pushes: Arc<push::Pushes>,
}

impl Doors {
    /// What the families offer by HTTP, for cameras on that bus. Who may use it is asked before; each route bounds the
    /// body that it takes, and answers a request that is wrong with a text.
    pub fn routes(self: &Arc<Self>, bus: &Arc<Bus>) -> Router {
        push::routes(self, bus).merge(mini_doorbell::routes(self))
    }
}
