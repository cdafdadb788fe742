//! What the handles of one repository object share.

use crate::base::{Base, Place};
use crate::error::{Error, Result};
use crate::read::Descriptors;
use crate::staging::Stager;
use chipmink_store::Store;
use chipmink_types::{Digest, GraphSource, TimeId};
use hashbrown::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Versions whose manifests are remembered.
const PLACES_MAX: usize = 4096;

/// A repository object.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) descriptors: Descriptors,
    /// Makes durable what is staged.
    pub(crate) stager: Option<Stager>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The base of each ref that was saved to or checked out; `None`: a save holds it.
    bases: HashMap<String, Option<Box<Base>>>,
    /// The version that the source's knowledge is about: its ref and number.
    source: Option<(String, Option<TimeId>)>,
    /// Commit and manifest of versions; they never change.
    places: HashMap<TimeId, Place>,
}

/// The base of a ref, taken for a save. It goes back when this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    shared: Arc<Shared>,
    ref_name: String,
    base: Option<Box<Base>>,
    /// Nobody has saved to or checked out from the ref yet: it is the newest version of the moment, and is forgotten
    /// again if the save fails.
    is_implicit: bool,
}

impl Shared {
    pub(crate) fn new(store: Store, stager: Option<Stager>) -> Self {
        Shared { store, descriptors: Descriptors::default(), stager, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves every field whole: each is replaced at once.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the base of a ref; the newest version if the ref has none yet.
    pub(crate) fn hold(this: &Arc<Self>, ref_name: &str) -> Result<Held> {
        let held = |base, is_implicit| Held {
            shared: Arc::clone(this),
            ref_name: ref_name.to_owned(),
            base: Some(base),
            is_implicit,
        };
        let mut state = this.state();
        match state.bases.get_mut(ref_name).map(Option::take) {
            Some(Some(base)) => return Ok(held(base, false)),
            Some(None) => return Err(Error::Busy { ref_name: ref_name.to_owned() }),
            // From here on the ref is held, also while its newest version is read.
            None => drop(state.bases.insert(ref_name.to_owned(), None)),
        }
        drop(state);
        let mut taken = held(Box::new(Base::empty()), true);
        this.store.refresh()?;
        if let Some(target) = this.store.head().refs.get(ref_name) {
            let place = Place { time: target.time, commit: target.commit, manifest: target.manifest };
            *taken.base_mut() = Base::read(place, Some(target.time), &this.store)?;
        }
        Ok(taken)
    }

    /// Lets the source start anew if what it knows is about another version than the base.
    pub(crate) fn align_source(&self, held: &mut Held, source: &mut dyn GraphSource) {
        let at = Some((held.ref_name.clone(), held.base_mut().place.map(|place| place.time)));
        let is_aligned = self.state().source.take() == at;
        if !is_aligned {
            source.reset();
            held.base_mut().forget_walks();
        }
    }

    /// The source knows the held base again.
    pub(crate) fn source_is_at(&self, held: &Held) {
        let time = held.base.as_ref().and_then(|base| base.place).map(|place| place.time);
        self.state().source = Some((held.ref_name.clone(), time));
    }

    pub(crate) fn source_adopted(&self, ref_name: &str, time: TimeId) {
        self.state().source = Some((ref_name.to_owned(), Some(time)));
    }

    pub(crate) fn source_discarded(&self, ref_name: &str) {
        let mut state = self.state();
        // The base may have been set anew meanwhile, or forgotten.
        let time = match state.bases.get(ref_name) {
            Some(Some(base)) => base.place.map(|place| place.time),
            _ => return,
        };
        state.source = Some((ref_name.to_owned(), time));
    }

    /// The version that the ref's next save builds on, if it was saved or checked out by this object.
    pub(crate) fn base(&self, ref_name: &str) -> Option<TimeId> {
        self.state().bases.get(ref_name)?.as_ref()?.place.map(|place| place.time)
    }

    /// Makes a version the base of a ref, which stays where it is.
    pub(crate) fn set_base(&self, ref_name: &str, time: TimeId) -> Result<()> {
        self.store.refresh()?;
        let expected = self.store.head().refs.get(ref_name).map(|target| target.time);
        let place = self.place(time)?;
        if let Some(held) = self.state().bases.get_mut(ref_name) {
            match held {
                None => return Err(Error::Busy { ref_name: ref_name.to_owned() }),
                // What is known of it stays known.
                Some(base) if base.place == Some(place) => {
                    base.expected = expected;
                    return Ok(());
                }
                Some(_) => {}
            }
        }
        let base = Base::read(place, expected, &self.store)?;
        let mut state = self.state();
        if matches!(state.bases.get(ref_name), Some(None)) {
            return Err(Error::Busy { ref_name: ref_name.to_owned() });
        }
        state.bases.insert(ref_name.to_owned(), Some(Box::new(base)));
        Ok(())
    }

    /// A ref is gone: who saves to it again begins anew.
    pub(crate) fn forget_base(&self, ref_name: &str) {
        let mut state = self.state();
        if matches!(state.bases.get(ref_name), Some(Some(_))) {
            state.bases.remove(ref_name);
        }
    }

    /// Commit and manifest of a version.
    pub(crate) fn place(&self, time: TimeId) -> Result<Place> {
        self.store.check_retained(time)?;
        if let Some(place) = self.state().places.get(&time) {
            return Ok(*place);
        }
        let commit = self.store.commit(time)?;
        let place = Place { time, commit: commit.digest(), manifest: commit.manifest };
        self.note_place(place);
        Ok(place)
    }

    /// Remembers commit and manifest of a version.
    pub(crate) fn note_place(&self, place: Place) {
        let mut state = self.state();
        if state.places.len() >= PLACES_MAX {
            state.places.clear();
        }
        state.places.insert(place.time, place);
    }

    pub(crate) fn manifest(&self, time: TimeId) -> Result<Digest> {
        self.place(time).map(|place| place.manifest)
    }
}

impl Held {
    pub(crate) fn base_mut(&mut self) -> &mut Base {
        self.base.get_or_insert_default()
    }

    /// Forgets the base if a sweep has dropped it: what it would give is not there, so all is saved anew.
    pub(crate) fn forget_dropped(&mut self) {
        let store = &self.shared.store;
        if let Some(base) = &mut self.base
            && base.place.is_some_and(|place| store.check_retained(place.time).is_err())
        {
            **base = Base { expected: base.expected, ..Base::empty() };
        }
    }

    /// The save went to another ref: the base is of that one, and the old ref is continued from its newest version.
    pub(crate) fn rename(&mut self, ref_name: &str) {
        let mut state = self.shared.state();
        state.bases.remove(&self.ref_name);
        state.bases.insert(ref_name.to_owned(), None);
        self.ref_name = ref_name.to_owned();
    }

    /// The base is now a version that this object has saved.
    pub(crate) fn keep(&mut self) {
        self.is_implicit = false;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if self.is_implicit {
            state.bases.remove(&self.ref_name);
        } else {
            state.bases.insert(std::mem::take(&mut self.ref_name), self.base.take());
        }
    }
}
