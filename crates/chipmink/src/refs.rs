//! Branches and tags: refs that are made, and go away, without a save.
//!
//! 1. A branch is moved by saves, a tag never: a ref whose name begins with [`TAG_PREFIX`] is a tag.
//! 2. Versions stay whatever becomes of refs.

use crate::error::{Error, Result};
use crate::repository::Repository;
use chipmink_format::RefTarget;
use chipmink_store::StoreError;
use chipmink_types::TimeId;

/// What the names of tags begin with.
pub const TAG_PREFIX: &str = "tag/";

/// Longest name of a ref, in bytes.
const NAME_MAX: usize = 200;

/// Refuses names that could not be typed, listed or told apart.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let plain = name.strip_prefix(TAG_PREFIX).unwrap_or(name);
    let reason = if plain.is_empty() {
        "it is empty"
    } else if name.len() > NAME_MAX {
        "it is longer than 200 bytes"
    } else if name.chars().any(|character| character.is_control() || character.is_whitespace()) {
        "it holds a blank or a control character"
    } else {
        return Ok(());
    };
    Err(Error::RefName { name: name.to_owned(), reason })
}

/// Refuses what cannot be the name of a branch: what no ref can be called, and tags, which saves do not move.
///
/// # Errors
/// When it is refused, with the reason.
pub fn check_branch(name: &str) -> Result<()> {
    check_name(name)?;
    match name.strip_prefix(TAG_PREFIX) {
        Some(_) => Err(Error::TagMoves { name: name.to_owned() }),
        None => Ok(()),
    }
}

impl Repository {
    /// Makes a ref that points at a version.
    ///
    /// # Errors
    /// When there is a ref of that name already, the name is none, or the version is unknown.
    pub fn create_ref(&self, name: &str, time: TimeId) -> Result<()> {
        check_name(name)?;
        let place = self.shared().place(time)?;
        let to = RefTarget { commit: place.commit, time, manifest: place.manifest };
        match self.store().begin().move_ref(name, None, Some(to)) {
            Ok(_) => Ok(()),
            Err(StoreError::RefMoved { found: Some(found), .. }) => {
                Err(Error::RefExists { name: name.to_owned(), time: found })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a ref away; the versions stay.
    ///
    /// # Errors
    /// When there is no such ref, or another writer moves it at this moment.
    pub fn delete_ref(&self, name: &str) -> Result<()> {
        let time = self.newest(name)?;
        self.store().begin().move_ref(name, Some(time), None)?;
        self.shared().forget_base(name);
        Ok(())
    }
}
