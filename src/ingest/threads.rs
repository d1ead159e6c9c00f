//! The threads that talk to cameras, apart from those that serve viewers.
//!
//! retina reads the head of an answer again from its beginning whenever more of it comes, and knows no limit, so a
//! camera that never ends a header keeps a thread busy until the patience for its answer is over (measured: `/healthz`
//! and all viewers stood still with it). It keeps one of these, and viewers notice nothing.

use std::sync::OnceLock;
use tokio::runtime::{Builder, Handle, Runtime};

/// So many cameras may misbehave in that way before the others have to wait for a turn.
const THREADS: usize = 4;

/// The runtime that camera sessions run on. It lives as long as the program: retina says goodbye from tasks of its own
/// and panics where their runtime ends before them.
pub(super) fn handle() -> Handle {
    static THREADS_OF_CAMERAS: OnceLock<Option<Runtime>> = OnceLock::new();
    let build = || {
        Builder::new_multi_thread().worker_threads(THREADS).thread_name("camera").enable_all().build().map_err(
            |error| {
                tracing::warn!(%error, "cannot start threads for cameras; they share those of viewers");
            },
        )
    };
    match THREADS_OF_CAMERAS.get_or_init(|| build().ok()) {
        Some(runtime) => runtime.handle().clone(),
        None => Handle::current(),
    }
}
