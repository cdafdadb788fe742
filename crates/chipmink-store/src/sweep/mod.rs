//! Sweeping: dropping versions, and giving back the room of what nothing reaches any more, while others save.
//!
//! **1** The sweeper decides which versions stay, and marks every blob that they reach. **2** Live blobs of packs that are
//! mostly dead are moved to a new pack, as are those of the newest version if it lies in very many. **3** One root entry drops the
//! versions, condemns the packs and adds the new one; if another entry was published meanwhile, the sweeper marks what that
//! reaches, plans again, and tries the next number. **4** When the grace is over, this sweep or a later one deletes what was
//! condemned. Killed anywhere in between, it leaves at most an orphan pack or condemned packs to the next.
//!
//! 1. Condemnation is final: what is deleted was condemned by an entry that is durable, and no entry names it again.
//! 2. An entry that a sweeper publishes was planned on exactly the entry before it.
//! 3. A writer publishes only what it has proved to be in packs that are live in the entry before its own (`transaction`).
//!    So the grace protects readers of dropped versions and speeds up writers; nothing depends on it.
//! 4. Where a retained version cannot be read in full, nothing is condemned.
//! 5. Root entries are never deleted.

mod catalog;
mod clock;
mod entry;
mod history;
mod lease;
mod mark;
mod orphans;
mod plan;
mod policy;
mod report;
mod rewrite;
mod sweeper;

pub(crate) use lease::{release_lease, take_lease};
pub(crate) use mark::reached;
pub use policy::{KeepEvery, Retention};
pub use report::{SweepReport, SweepRequest};
pub(crate) use rewrite::{each_stored, put_stored};
pub(crate) use sweeper::sweep;
