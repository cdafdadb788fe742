//! [`Staging`]: a pool in front of a repository, whose versions go below one after another.
//!
//! A save into the staged repository is an ordinary save whose objects are created in the pool; its root entry there makes it
//! *staged*. To make it *durable*: **1** whoever persists reads the oldest entry that is only in the pool, and checks it and
//! every byte of its packs; **2** it writes the packs below, durably; **3** it creates the same entry, with the same number and
//! write id, below; **4** it settles the objects in the pool, which from then on go when room is needed. Killed anywhere in
//! between, the next one begins at 1 and finds by the write id what is below already.
//!
//! 1. A version is below only after every version that it builds on.
//! 2. A version is published below once, whoever and however many try.
//! 3. Nothing of the pool is believed before it was checked, and nothing that fails a check goes below.
//! 4. If somebody else has published below meanwhile, a staged version gets the next free number, and keeps its own as an
//!    alias. If they moved its ref, it goes to a ref of its own, `REF@staged-…`: nothing that was staged is lost.

mod persist;
mod prove;
mod publish;

pub use persist::{Persisted, StagedState, Staging};
