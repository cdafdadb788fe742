//! [`MapBudget`]: how many mappings may be made.

use crate::error::{Result, ShmError};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Mappings of a process at most.
pub const MOST_MAPPINGS: usize = 4096;

/// Counts mappings. Clones count together.
#[derive(Clone, Debug)]
pub struct MapBudget {
    used: Arc<AtomicUsize>,
    limit: usize,
}

/// Some mappings of a budget; they may be made again once it is dropped.
#[derive(Debug)]
pub struct Permit {
    budget: MapBudget,
    count: usize,
}

impl MapBudget {
    /// Allows so many.
    pub fn new(limit: usize) -> Self {
        MapBudget { used: Arc::default(), limit }
    }

    /// That of this process: [`MOST_MAPPINGS`].
    pub fn of_process() -> Self {
        static PROCESS: std::sync::OnceLock<MapBudget> = std::sync::OnceLock::new();
        PROCESS.get_or_init(|| MapBudget::new(MOST_MAPPINGS)).clone()
    }

    /// Mappings that may still be made.
    pub fn left(&self) -> usize {
        self.limit.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    /// Takes some, all or none.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn take(&self, count: usize) -> Result<Permit> {
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(count).filter(|sum| *sum <= self.limit)
        });
        match taken {
            Ok(_) => Ok(Permit { budget: self.clone(), count }),
            Err(used) => {
                Err(ShmError::Mappings { needed: count, left: self.limit - used, limit: self.limit })
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.count, Ordering::Relaxed);
    }
}
