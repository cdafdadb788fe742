//! Names of globals and attributes, which many rows share, remembered by digest.

use crate::error::Result;
use chipmink_format::{decode_global, decode_names};
use chipmink_types::{BlobSource, Digest, GlobalName};
use hashbrown::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

/// Descriptors remembered of each kind; with more they are read again.
const REMEMBERED_MAX: usize = 1 << 14;

/// Attribute names of a shape: in `__dict__`, and of slots.
pub(crate) type AttributeNames = (Vec<String>, Vec<String>);

/// Descriptors that were read.
#[derive(Debug, Default)]
pub(crate) struct Descriptors {
    known: Mutex<Known>,
}

/// Decoded descriptors by digest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) globals: HashMap<Digest, GlobalName>,
    pub(crate) names: HashMap<Digest, AttributeNames>,
}

impl Descriptors {
    /// All that are asked for, decoded.
    pub(crate) fn load(
        &self,
        globals: &HashSet<Digest>,
        names: &HashSet<Digest>,
        source: &dyn BlobSource,
    ) -> Result<Known> {
        let mut found = Known::default();
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let take = |digest: &Digest| Some((*digest, known.globals.get(digest)?.clone()));
            found.globals.extend(globals.iter().filter_map(take));
            let take = |digest: &Digest| Some((*digest, known.names.get(digest)?.clone()));
            found.names.extend(names.iter().filter_map(take));
        }
        let new_globals = missing(globals, &found.globals);
        let new_names = missing(names, &found.names);
        let mut wanted = new_globals.clone();
        wanted.extend_from_slice(&new_names);
        if wanted.is_empty() {
            return Ok(found);
        }
        let blobs = source.get_many(&wanted)?;
        let (global_blobs, name_blobs) = blobs.split_at(new_globals.len());
        let mut fresh = Known::default();
        for (digest, bytes) in new_globals.iter().zip(global_blobs) {
            fresh.globals.insert(*digest, decode_global(bytes).map_err(|error| error.in_blob(digest))?);
        }
        for (digest, bytes) in new_names.iter().zip(name_blobs) {
            fresh.names.insert(*digest, decode_names(bytes).map_err(|error| error.in_blob(digest))?);
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.globals.len() + fresh.globals.len() > REMEMBERED_MAX {
            known.globals.clear();
        }
        if known.names.len() + fresh.names.len() > REMEMBERED_MAX {
            known.names.clear();
        }
        known.globals.extend(fresh.globals.iter().map(|(digest, name)| (*digest, name.clone())));
        known.names.extend(fresh.names.iter().map(|(digest, names)| (*digest, names.clone())));
        drop(known);
        found.globals.extend(fresh.globals);
        found.names.extend(fresh.names);
        Ok(found)
    }
}

fn missing<V>(wanted: &HashSet<Digest>, found: &HashMap<Digest, V>) -> Vec<Digest> {
    let mut missing: Vec<Digest> =
        wanted.iter().filter(|digest| !found.contains_key(*digest)).copied().collect();
    missing.sort_unstable();
    missing
}
