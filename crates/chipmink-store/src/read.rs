//! Reading blobs: resolve, read near ones at once, decode, check.

use crate::cancel::Cancel;
use crate::compression::PlaceKind;
use crate::error::{Result, StoreError};
use crate::index::{Found, Location, Pack, harm_of};
use crate::inner::Inner;
use crate::parallel::in_parallel;
use crate::read_ahead::{Pieces, cut, join};
use bytes::Bytes;
use chipmink_digest::digest;
use chipmink_format::{Codec, DELTA_CHAIN_MAX, decode_blob, decode_delta, expansion_max, pack_path};
use chipmink_types::{BlobError, BlobSource, Digest};
use std::ops::Range;
use std::sync::Mutex;

/// Blobs that lie nearer to each other than this are read at once: about what a disk or network moves in the time of
/// one more request.
const GAP: u64 = 64 << 10;
/// Bytes that one call may read in vain, beside an eighth of those that it is asked for.
const WASTE: u64 = 32 << 10;
/// Longest read, in bytes.
const READ_LEN: u64 = 8 << 20;

impl Inner {
    fn missing(digest: &Digest, error: Option<StoreError>) -> BlobError {
        match error {
            Some(StoreError::Format { object, source, .. }) => BlobError::Damaged {
                digest: *digest,
                reason: format!("its index cannot be read: {object}: {source}"),
            },
            Some(error) => error.into(),
            None => BlobError::Missing { digest: *digest },
        }
    }

    fn pack_path(&self, ordinal: u32) -> String {
        pack_path(self.index().pack(ordinal).name)
    }

    /// A range of a pack, in pieces. Far away what lies around it is read, too.
    fn stored(&self, ordinal: u32, range: &Range<u64>) -> Result<Pieces> {
        let Pack { name, blobs_end, .. } = *self.index().pack(ordinal);
        let path = pack_path(name);
        let read = |range: Range<u64>| self.backend.get_range(&path, range);
        match self.backend.kind() {
            PlaceKind::Remote => self.read_ahead.get(ordinal, blobs_end, range, read),
            _ => Ok(Pieces::from_iter([read(range.clone())?])),
        }
    }

    /// Decodes stored bytes and checks them.
    fn decode(&self, name: &Digest, found: &Found, stored: Bytes, depth: usize) -> Result<Bytes, BlobError> {
        let Location { decoded_len, stored_len, codec, .. } = found.location;
        let damaged = |reason: String| BlobError::Damaged { digest: *name, reason };
        let max = self.options.blob_bytes_max.min(expansion_max(stored_len));
        let decoded = match found.base {
            Some(base) if depth < DELTA_CHAIN_MAX => {
                let base = self.read_at_depth(&base, depth + 1)?;
                decode_delta(&stored, codec, decoded_len, base, max)
            }
            Some(_) => return Err(damaged("its chain of chunk deltas is too long".into())),
            None => decode_blob(stored, codec, decoded_len, max),
        };
        let bytes = decoded
            .map_err(|error| damaged(format!("{error} (in {})", self.pack_path(found.location.pack))))?;
        if digest(&bytes) != *name {
            let at = found.location.byte_offset;
            let path = self.pack_path(found.location.pack);
            return Err(damaged(format!("its {} bytes at {at} of {path} have another digest", bytes.len())));
        }
        Ok(bytes)
    }

    fn read_found(&self, name: &Digest, found: &Found, depth: usize) -> Result<Bytes, BlobError> {
        let Location { byte_offset, stored_len, pack, .. } = found.location;
        let stored = join(self.stored(pack, &(byte_offset..byte_offset + stored_len))?);
        self.decode(name, found, stored, depth)
    }

    /// Where a blob lies; others may have published it since this process looked.
    fn locate(&self, name: &Digest) -> Result<Found, BlobError> {
        let find = || self.index().find(name);
        let found = match find() {
            Ok(Some(found)) => return Ok(found),
            // Its index may have been swept meanwhile.
            Ok(None) | Err(_) => {
                self.refresh()?;
                find()
            }
        };
        match found {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(BlobError::Missing { digest: *name }),
            Err(error) => Err(Inner::missing(name, Some(error))),
        }
    }

    /// Reads a blob, from another pack if the first copy cannot be had.
    pub(crate) fn read_at_depth(&self, name: &Digest, depth: usize) -> Result<Bytes, BlobError> {
        let mut found = self.locate(name)?;
        let mut tried = Vec::new();
        let mut failure: Option<BlobError> = None;
        loop {
            match self.read_found(name, &found, depth) {
                Ok(bytes) => return Ok(bytes),
                Err(error) => failure.get_or_insert(error),
            };
            tried.push(found.location.pack);
            // A pack may have been swept since: the newest entries say where its blobs are now.
            if tried.len() == 1 {
                let _ = self.refresh();
            }
            let other = self.index().find_elsewhere(name, &tried);
            match other {
                Some(other) => found = other,
                None => {
                    let failure = failure.unwrap_or(BlobError::Missing { digest: *name });
                    return Err(self.harmed(name, &tried).unwrap_or(failure));
                }
            }
        }
    }

    /// What to say of a blob if a live pack that should hold it is not what it was.
    fn harmed(&self, name: &Digest, packs: &[u32]) -> Option<BlobError> {
        let known = |pack: &u32| self.index().pack(*pack).clone();
        let reason = packs.iter().map(known).filter(|pack| pack.is_live).find_map(|pack| {
            let path = pack_path(pack.name);
            let harm = harm_of(&self.backend, &path, pack.byte_len)?;
            Some(format!("its pack {path} in {} {harm}", self.backend.label()))
        })?;
        Some(BlobError::Damaged { digest: *name, reason })
    }

    /// Where each blob lies.
    pub(crate) fn resolve(&self, digests: &[Digest]) -> Result<Vec<Found>, BlobError> {
        let found = self.index().find_many(digests).0;
        found
            .into_iter()
            .zip(digests)
            .map(|(found, digest)| found.map_or_else(|| self.locate(digest), Ok))
            .collect()
    }

    pub(crate) fn read_many(&self, digests: &[Digest]) -> Result<Vec<Bytes>, BlobError> {
        let found: Vec<Option<Found>> = self.resolve(digests)?.into_iter().map(Some).collect();
        let read = self.read_batch(&found, 0);
        let checked = |(name, bytes): (&Digest, Option<Bytes>)| match bytes {
            Some(bytes) if digest(&bytes) == *name => Ok(bytes),
            // One by one it is found out which of its packs or bases is damaged, and whether there are others.
            _ => self.read_at_depth(name, 0),
        };
        digests.iter().zip(read).map(checked).collect()
    }

    /// Reads blobs, those that lie near each other at once, and decodes them. They are not checked against their digests;
    /// `None` for what cannot be had this way.
    fn read_batch(&self, found: &[Option<Found>], depth: usize) -> Vec<Option<Bytes>> {
        let mut blobs = self.read_stored(found);
        let bases: Vec<Digest> = found.iter().flatten().filter_map(|found| found.base).collect();
        let mut bases = match bases.is_empty() || depth == DELTA_CHAIN_MAX {
            true => Vec::new(),
            false => {
                let below = self.index().find_many(&bases).0;
                self.read_batch(&below, depth + 1)
            }
        }
        .into_iter();
        for (blob, found) in blobs.iter_mut().zip(found) {
            let Some(Found { location, base }) = found else { continue };
            let base = base.map(|_| bases.next().flatten());
            let Location { decoded_len, stored_len, codec, .. } = *location;
            let max = self.options.blob_bytes_max.min(expansion_max(stored_len));
            *blob = match (blob.take(), base) {
                (Some(stored), None) => decode_blob(stored, codec, decoded_len, max).ok(),
                (Some(stored), Some(Some(base))) => decode_delta(&stored, codec, decoded_len, base, max).ok(),
                _ => None,
            };
        }
        blobs
    }

    /// The stored bytes of blobs; `None` where they cannot be read.
    pub(crate) fn read_stored(&self, found: &[Option<Found>]) -> Vec<Option<Bytes>> {
        let mut order: Vec<(usize, Location)> =
            found.iter().enumerate().filter_map(|(at, found)| Some((at, found.as_ref()?.location))).collect();
        order.sort_unstable_by_key(|(_, location)| (location.pack, location.byte_offset));
        let mut blobs = vec![None; found.len()];
        let mut waste = WASTE + order.iter().map(|(_, location)| location.stored_len / 8).sum::<u64>();
        let mut runs = Vec::new();
        let mut rest = order.as_slice();
        while let Some(&(_, first)) = rest.first() {
            let (pack, start) = (first.pack, first.byte_offset);
            let mut end = start + first.stored_len;
            let mut count = 1;
            while let Some(&(_, next)) = rest.get(count) {
                let gap = next.byte_offset.saturating_sub(end);
                if next.pack != pack || gap > GAP.min(waste) {
                    break;
                }
                let longer = end.max(next.byte_offset + next.stored_len);
                if longer - start > READ_LEN {
                    break;
                }
                waste -= gap;
                end = longer;
                count += 1;
            }
            let (run, after) = rest.split_at(count);
            rest = after;
            runs.push((pack, start..end, run));
        }
        let read =
            in_parallel(&runs, self.backend.ranges_at_once(), |(pack, range, _)| self.stored(*pack, range));
        for ((_, range, run), pieces) in runs.iter().zip(read) {
            let Ok(pieces) = pieces else { continue };
            for (at, location) in *run {
                let from = (location.byte_offset - range.start) as usize;
                blobs[*at] = Some(cut(&pieces, from..from + location.stored_len as usize));
            }
        }
        blobs
    }

    /// Fills `into` with blobs one after another, of the given lengths. Raw neighbours are read in place.
    pub(crate) fn read_into(
        &self,
        blobs: &[(Digest, u64)],
        into: &mut [u8],
        cancel: Option<&Cancel>,
    ) -> Result<(), BlobError> {
        let digests: Vec<Digest> = blobs.iter().map(|(digest, _)| *digest).collect();
        let found = self.resolve(&digests)?;
        for ((name, len), found) in blobs.iter().zip(&found) {
            if found.location.decoded_len != *len {
                let reason = format!("it has {} bytes where {len} belong", found.location.decoded_len);
                return Err(BlobError::Damaged { digest: *name, reason });
            }
        }
        let total = blobs.iter().try_fold(0u64, |sum, (_, len)| sum.checked_add(*len));
        if total != Some(into.len() as u64) {
            let context = format!("reading {} blobs into {} bytes", blobs.len(), into.len());
            let source = "their lengths are not those of the place for them".into();
            return Err(BlobError::Storage { context, source });
        }
        let is_raw = |found: &Found| found.location.codec == Codec::Raw;
        let follows = |before: &Found, next: &Found| {
            let (before, next) = (before.location, next.location);
            before.pack == next.pack && before.byte_offset + before.stored_len == next.byte_offset
        };
        let mut at = 0;
        let mut into = into;
        let mut pieces = Vec::new();
        while at < blobs.len() {
            let mut end = at + 1;
            let mut len = blobs[at].1;
            let goes_on = |end: usize| match is_raw(&found[at]) {
                true => is_raw(&found[end]) && follows(&found[end - 1], &found[end]),
                false => !is_raw(&found[end]),
            };
            while end < blobs.len() && goes_on(end) && len + blobs[end].1 <= READ_LEN {
                len += blobs[end].1;
                end += 1;
            }
            let (now, later) = into.split_at_mut(len as usize);
            pieces.push((at..end, Mutex::new(now)));
            (at, into) = (end, later);
        }
        let fill = |(range, into): &(Range<usize>, Mutex<&mut [u8]>)| {
            if cancel.is_some_and(Cancel::is_cancelled) {
                return Err(StoreError::LoadCancelled.into());
            }
            // Each is filled by one thread.
            let mut into = into.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            match is_raw(&found[range.start]) {
                true => self.fill(&blobs[range.clone()], &found[range.start], &mut into),
                false => self.fill_decoded(&blobs[range.clone()], &mut into),
            }
        };
        in_parallel(&pieces, self.backend.ranges_at_once(), fill).into_iter().collect()
    }

    /// Reads raw neighbours in place.
    fn fill(&self, blobs: &[(Digest, u64)], first: &Found, into: &mut [u8]) -> Result<(), BlobError> {
        let Location { byte_offset, pack, .. } = first.location;
        let is_read = self.stored_into(pack, byte_offset, into).is_ok();
        let mut from = 0;
        for (name, len) in blobs {
            let range: Range<usize> = from..from + *len as usize;
            from = range.end;
            if !is_read || digest(&into[range.clone()]) != *name {
                let bytes = self.read_at_depth(name, 0)?;
                put(name, &bytes, &mut into[range])?;
            }
        }
        Ok(())
    }

    fn stored_into(&self, pack: u32, byte_offset: u64, into: &mut [u8]) -> Result<()> {
        if self.backend.kind() != PlaceKind::Remote {
            return self.backend.read_into(&self.pack_path(pack), byte_offset, into);
        }
        let mut rest = into;
        let range = byte_offset..byte_offset + rest.len() as u64;
        for piece in self.stored(pack, &range)? {
            let (now, later) = rest.split_at_mut(piece.len());
            now.copy_from_slice(&piece);
            rest = later;
        }
        Ok(())
    }

    fn fill_decoded(&self, blobs: &[(Digest, u64)], into: &mut [u8]) -> Result<(), BlobError> {
        let digests: Vec<Digest> = blobs.iter().map(|(digest, _)| *digest).collect();
        let mut rest = into;
        for ((name, len), bytes) in blobs.iter().zip(self.read_many(&digests)?) {
            let (now, later) = rest.split_at_mut(*len as usize);
            put(name, &bytes, now)?;
            rest = later;
        }
        Ok(())
    }
}

/// Copies a blob to where it belongs. Another of its rows may have told its length.
fn put(name: &Digest, bytes: &[u8], into: &mut [u8]) -> Result<(), BlobError> {
    if bytes.len() != into.len() {
        let reason = format!("it has {} bytes where an index says {}", bytes.len(), into.len());
        return Err(BlobError::Damaged { digest: *name, reason });
    }
    into.copy_from_slice(bytes);
    Ok(())
}

impl BlobSource for Inner {
    fn get(&self, digest: &Digest) -> Result<Bytes, BlobError> {
        if let Some(bytes) = self.cached_blob(digest) {
            return Ok(bytes);
        }
        let bytes = self.read_at_depth(digest, 0)?;
        self.cache_blob(*digest, &bytes);
        Ok(bytes)
    }

    fn get_many(&self, digests: &[Digest]) -> Result<Vec<Bytes>, BlobError> {
        match digests {
            [digest] => Ok(vec![self.get(digest)?]),
            _ => self.read_many(digests),
        }
    }
}
