//! Decoding that takes long, away from the few threads that all cameras share.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;
use tokio::task::unconstrained;

/// Each stands for a mebi of what [`within`] is told; the largest picture that is decoded takes them all.
const BUDGET: u32 = 96;
static FREE: Semaphore = Semaphore::const_new(BUDGET as usize);

/// Does work that takes long: on a thread of several, the tasks that wait for it go on elsewhere meanwhile.
pub(in crate::ingest) fn apart<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        // No runtime, or one whose only thread this is.
        _ => work(),
    }
}

/// The same for work that needs memory, in units of two bytes: no more than 192 MiB at a time, first come, first served.
pub(super) fn within<T>(units: usize, work: impl FnOnce() -> T) -> T {
    let share = u32::try_from(units.div_ceil(1 << 20)).unwrap_or(BUDGET).clamp(1, BUDGET);
    apart(|| {
        // Never closed. Whoever holds a share needs nothing from this thread.
        let _share = futures::executor::block_on(unconstrained(FREE.acquire_many(share)));
        work()
    })
}

/// What is left of the budget.
#[cfg(test)]
pub(super) fn free() -> usize {
    FREE.available_permits()
}
