//! [`PoolLease`]: who settles objects. One process at a time need do it.

use super::layout::LEASE_AT;
use super::store::Pool;
use crate::error::Result;
use crate::segment::layout::{get, is_sealed, put, seal};
use crate::segment::process::Owner;

const LEASE_LEN: usize = 32;

/// The claim of this process to be the one that settles. It ends when it is dropped, and with the process.
#[derive(Debug)]
pub struct PoolLease {
    pool: Pool,
    owner: Owner,
}

fn read(pool: &Pool) -> Result<Option<Owner>> {
    let mut bytes = [0; LEASE_LEN];
    pool.shared.access.read_at(LEASE_AT, &mut bytes)?;
    let owner = Owner { pid: get(&bytes, 0), started: get(&bytes, 8), namespace: get(&bytes, 16) };
    Ok((is_sealed(&bytes) && owner.pid != 0).then_some(owner))
}

impl Pool {
    /// Takes the lease, or says with `None` that another living process has it.
    ///
    /// # Errors
    /// When the segment fails.
    pub fn lease(&self) -> Result<Option<PoolLease>> {
        let me = self.shared.me()?;
        self.shared.change(|_| {
            if read(self)?.is_some_and(|owner| owner != me && owner.may_live()) {
                return Ok(None);
            }
            let mut bytes = [0; LEASE_LEN];
            put(&mut bytes, 0, me.pid);
            put(&mut bytes, 8, me.started);
            put(&mut bytes, 16, me.namespace);
            seal(&mut bytes);
            self.shared.access.write_at(LEASE_AT, &bytes)?;
            Ok(Some(PoolLease { pool: self.clone(), owner: me }))
        })
    }

    /// The process that holds the lease, if it may still be running.
    ///
    /// # Errors
    /// When the segment fails.
    pub fn lease_holder(&self) -> Result<Option<u64>> {
        Ok(read(self)?.filter(Owner::may_live).map(|owner| owner.pid))
    }
}

impl PoolLease {
    /// Whether nobody took it away.
    ///
    /// # Errors
    /// When the segment fails.
    pub fn stands(&self) -> Result<bool> {
        Ok(read(&self.pool)? == Some(self.owner))
    }
}

impl Drop for PoolLease {
    fn drop(&mut self) {
        // A forked child has a copy of what is not its own.
        if u64::from(std::process::id()) != self.owner.pid {
            return;
        }
        // If it fails, the lease ends with the process.
        let _ = self.pool.shared.change(|_| match self.stands()? {
            true => self.pool.shared.access.write_at(LEASE_AT, &[0; LEASE_LEN]),
            false => Ok(()),
        });
    }
}
