//! The clock of the store: grace is counted by it, since those of its users differ.

use super::policy::micros;
use crate::creation::now_micros;
use crate::error::Result;
use crate::inner::Inner;
use crate::log::HINT;
use bytes::Bytes;
use std::time::Duration;

/// A moment by the store's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    now: i64,
}

impl Clock {
    /// What the store's clock says: the time of the hint, which is written for that.
    pub(super) fn read(inner: &Inner) -> Result<Self> {
        let hint = Bytes::from(format!("{}\n", inner.log().head.number));
        let backend = inner.backend.relaxed();
        backend.replace(HINT, hint)?;
        let now = backend.modified_at(HINT)?;
        Ok(Clock { now: now.unwrap_or_else(now_micros) })
    }

    /// What the clock of this machine says, where nothing may be written.
    pub(super) fn of_this_machine() -> Self {
        Clock { now: now_micros() }
    }

    /// Microseconds since 1970.
    pub(super) const fn now(&self) -> i64 {
        self.now
    }

    /// Whether so much time has passed since `then`.
    pub(super) fn is_past(&self, then: i64, grace: Duration) -> bool {
        i128::from(self.now) - i128::from(then) >= i128::from(micros(grace)) || grace.is_zero()
    }
}
