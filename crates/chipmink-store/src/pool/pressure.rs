//! [`Pressure`]: waiting for room in a staging tier.

use chipmink_format::parse_root_path;
use chipmink_types::{PoolError, SharedPool};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long room is waited for without any change in the pool.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks: one system call each.
const PAUSE: Duration = Duration::from_millis(2);

/// What those who wait for room know of those who make it.
#[derive(Debug, Default)]
pub(crate) struct Pressure {
    /// Why nothing can be made durable at this moment, if this process tries and fails.
    failure: Mutex<Option<String>>,
}

impl Pressure {
    fn failure(&self) -> MutexGuard<'_, Option<String>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes whether what is staged can be made durable.
    pub(crate) fn note(&self, failure: Option<String>) {
        *self.failure() = failure;
    }

    /// Waits until there may be room where `full` said that there is none. `began`: when it was first waited for.
    pub(crate) fn wait(
        &self,
        pool: &dyn SharedPool,
        full: PoolError,
        began: &mut Option<Instant>,
    ) -> Result<(), PoolError> {
        let changes = pool.changes()?;
        let is_staged = |object: &chipmink_types::PoolObject| {
            !object.is_settled && parse_root_path(&object.name).is_some()
        };
        if !pool.list()?.iter().any(is_staged) {
            // Nothing will make room: this save alone does not fit.
            return Err(full);
        }
        let began = began.get_or_insert_with(Instant::now);
        while pool.changes()? == changes {
            let waiting = |reason: String| PoolError::Failed {
                context: format!("waiting for room in {}", pool.label()),
                source: reason.into(),
            };
            if let Some(failure) = self.failure().clone() {
                return Err(waiting(format!("what is staged cannot be made durable: {failure}")));
            }
            if began.elapsed() > PATIENCE {
                let reason = "nothing was made durable for a minute; see whether `chipmink agent` still runs";
                return Err(waiting(reason.to_owned()));
            }
            std::thread::sleep(PAUSE);
        }
        *began = Instant::now();
        Ok(())
    }
}
