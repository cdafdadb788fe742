//! Push and pull: versions brought to another repository, at any place.
//!
//! Both are [`chipmink_store::Store::transfer`], after what the versions name outside of themselves. Here it is decided what
//! a destination that is new becomes: a copy, with the identity and the numbers of the source, if all of that is carried;
//! else a repository of its own.

use crate::error::Result;
use crate::options::OpenOptions;
use crate::repository::Repository;
use chipmink_store::{Place, TransferOptions, TransferReport, Watch};

impl Repository {
    /// Brings versions of this repository to another.
    ///
    /// # Errors
    /// When a branch went another way there, a place fails, or this repository is damaged. The next call goes on from
    /// wherever this one was interrupted.
    pub fn push(
        &self,
        to: &Repository,
        options: &TransferOptions,
        watch: &mut Watch<'_>,
    ) -> Result<TransferReport> {
        self.push_with_elsewhere(to, options, watch)
    }

    /// As [`Repository::push`], to a place, where a repository is made if there is none and `open` allows.
    ///
    /// # Errors
    /// As [`Repository::push`], and when the place cannot be opened.
    pub fn push_to(
        &self,
        to: Place,
        mut open: OpenOptions,
        options: &TransferOptions,
        watch: &mut Watch<'_>,
    ) -> Result<TransferReport> {
        // What cannot be done makes no repository.
        options.refs.iter().try_for_each(|spec| self.newest(&spec.from).map(drop))?;
        if options.is_whole() {
            open.store.repository = Some(self.store().repository());
        }
        self.push(&Repository::open_place(to, open)?, options, watch)
    }
}
