//! Reading blobs: resolve, read near ones at once, decode, check.

use crate::error::{Result, StoreError};
use crate::index::{Found, Location};
use crate::inner::Inner;
use bytes::Bytes;
use chipmink_digest::digest;
use chipmink_format::{Codec, DELTA_CHAIN_MAX, decode_blob, decode_delta, pack_path};
use chipmink_types::{BlobError, BlobSource, Digest};
use std::ops::Range;

/// Blobs that lie nearer to each other than this are read at once: about what a disk or network moves in the time of
/// one more request.
const GAP: u64 = 64 << 10;
/// Bytes that one call may read in vain, beside an eighth of those that it is asked for.
const WASTE: u64 = 32 << 10;
/// Longest read, in bytes.
const READ_LEN: u64 = 8 << 20;

/// The most that so many stored bytes can become. One zstd block holds at most 128 KiB and takes at least four bytes.
pub(crate) const fn expansion_max(stored_len: u64) -> u64 {
    stored_len.saturating_mul(128 * 1024 / 4).saturating_add(1 << 16)
}

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

    /// Decodes stored bytes and checks them.
    fn decode(&self, name: &Digest, found: &Found, stored: Bytes, depth: usize) -> Result<Bytes, BlobError> {
        let Location { decoded_len, stored_len, codec, .. } = found.location;
        let damaged = |reason: String| BlobError::Damaged { digest: *name, reason };
        let max = self.options.blob_bytes_max.min(expansion_max(stored_len));
        let decoded = match (codec, found.base) {
            (Codec::Delta, Some(base)) if depth < DELTA_CHAIN_MAX => {
                let base = self.read_at_depth(&base, depth + 1)?;
                decode_delta(&stored, decoded_len, &base, max)
            }
            (Codec::Delta, _) => {
                return Err(damaged("its chain of chunk deltas is too long, or has no base".into()));
            }
            _ => decode_blob(stored, codec, decoded_len, max),
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
        let stored = self.backend.get_range(&self.pack_path(pack), byte_offset..byte_offset + stored_len)?;
        self.decode(name, found, stored, depth)
    }

    /// Where a blob lies; others may have published it since this process looked.
    fn locate(&self, name: &Digest) -> Result<Found, BlobError> {
        let find = || self.index().find(name);
        let found = match find() {
            Ok(None) => {
                self.refresh()?;
                find()
            }
            other => other,
        };
        match found {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(BlobError::Missing { digest: *name }),
            Err(error) => Err(Inner::missing(name, Some(error))),
        }
    }

    /// Reads a blob, from another pack if the first copy cannot be had.
    fn read_at_depth(&self, name: &Digest, depth: usize) -> Result<Bytes, BlobError> {
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
            match self.index().find_elsewhere(name, &tried) {
                Some(other) => found = other,
                None => return Err(failure.unwrap_or(BlobError::Missing { digest: *name })),
            }
        }
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
        let found = self.resolve(digests)?;
        let mut order: Vec<usize> = (0..digests.len()).collect();
        order.sort_unstable_by_key(|at| (found[*at].location.pack, found[*at].location.byte_offset));
        let mut blobs = vec![Bytes::new(); digests.len()];
        let mut waste = WASTE + found.iter().map(|found| found.location.stored_len / 8).sum::<u64>();
        let mut rest = order.as_slice();
        while let Some(&first) = rest.first() {
            let (pack, start) = (found[first].location.pack, found[first].location.byte_offset);
            let mut end = start + found[first].location.stored_len;
            let mut count = 1;
            while let Some(&next) = rest.get(count) {
                let next = found[next].location;
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
            match self.backend.get_range(&self.pack_path(pack), start..end) {
                Ok(bytes) => {
                    for &at in run {
                        let location = found[at].location;
                        let from = (location.byte_offset - start) as usize;
                        let stored = bytes.slice(from..from + location.stored_len as usize);
                        blobs[at] = match self.decode(&digests[at], &found[at], stored, 0) {
                            Ok(bytes) => bytes,
                            Err(_) => self.read_at_depth(&digests[at], 0)?,
                        };
                    }
                }
                Err(_) => {
                    for &at in run {
                        blobs[at] = self.read_at_depth(&digests[at], 0)?;
                    }
                }
            }
        }
        Ok(blobs)
    }

    /// Fills `into` with blobs one after another, of the given lengths. Raw neighbours are read in place.
    pub(crate) fn read_into(&self, blobs: &[(Digest, u64)], into: &mut [u8]) -> Result<(), BlobError> {
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
        let follows = |before: &Found, next: &Found| {
            let (before, next) = (before.location, next.location);
            let both_raw = before.codec == Codec::Raw && next.codec == Codec::Raw;
            both_raw && before.pack == next.pack && before.byte_offset + before.stored_len == next.byte_offset
        };
        let mut at = 0;
        let mut into = into;
        while at < blobs.len() {
            let mut end = at + 1;
            let mut len = blobs[at].1;
            while end < blobs.len() && follows(&found[end - 1], &found[end]) && len + blobs[end].1 <= READ_LEN
            {
                len += blobs[end].1;
                end += 1;
            }
            let (now, later) = into.split_at_mut(len as usize);
            self.fill(&blobs[at..end], &found[at..end], now)?;
            (at, into) = (end, later);
        }
        Ok(())
    }

    fn fill(&self, blobs: &[(Digest, u64)], found: &[Found], into: &mut [u8]) -> Result<(), BlobError> {
        let Location { byte_offset, pack, codec, .. } = found[0].location;
        let is_raw = codec == Codec::Raw;
        let is_read = is_raw && self.backend.read_into(&self.pack_path(pack), byte_offset, into).is_ok();
        let mut from = 0;
        for (name, len) in blobs {
            let range: Range<usize> = from..from + *len as usize;
            from = range.end;
            if !is_read || digest(&into[range.clone()]) != *name {
                let bytes = self.read_at_depth(name, 0)?;
                into[range].copy_from_slice(&bytes);
            }
        }
        Ok(())
    }
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
