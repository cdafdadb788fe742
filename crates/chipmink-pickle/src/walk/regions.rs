//! Regions: contents that leave the stream, as chunks and a digest tree.
//!
//! What is stored of memory that a program may write is always a copy, digested after copying; hashing live memory only
//! decides that nothing need be stored. `live_digest` is the one function that hashes it.

use super::dumps::StreamRegion;
use super::frames::At;
use super::live::edges_of_copy;
use super::live_hash::digest_far;
use super::memory::Span;
use super::walker::{Step, Walker};
use crate::py::Obj;
use chipmink_digest::{Grid, NodeKind, TreeBuilder};
use chipmink_format::tag;
use chipmink_types::{BlobError, BlobKind, Digest, GridKind, Look, RegionOutline, RegionRecord, ViewRecord};

/// A grid of one run: kind and row length.
pub(crate) const RUN: (GridKind, u64) = (GridKind::Run, 0);

/// The digest of memory that the program may write at any time. It only ever decides that nothing need be stored.
pub(crate) fn live_digest(pointer: *const u8, len: usize) -> Digest {
    // SAFETY: the caller keeps the buffer's owner alive, and the buffer has `len` bytes. Another thread may write to it
    // meanwhile; then the digest is of no state in particular, which the caller allows for.
    digest_far(unsafe { std::slice::from_raw_parts(pointer, len) })
}

/// The digest of an atom's content, and its type, as words of a shadow.
pub(crate) fn atom_digest(object: Obj) -> [u64; 3] {
    let content = if object.is_str() {
        chipmink_digest::digest(object.str_raw())
    } else if object.is_bytes() {
        chipmink_digest::digest(object.bytes_slice())
    } else {
        chipmink_digest::digest(&super::builder::big_int_bytes(object))
    };
    let [high, low] = digest_words(&content);
    // The width of a str is part of its value.
    let width = if object.is_str() { object.str_width() as u64 } else { 0 };
    [object.ty_addr() as u64 ^ width << 60, high, low]
}

pub(crate) fn digest_words(digest: &Digest) -> [u64; 2] {
    let bytes = digest.as_bytes();
    let word = |at: usize| {
        let mut eight = [0u8; 8];
        eight.copy_from_slice(&bytes[at..at + 8]);
        u64::from_be_bytes(eight)
    };
    [word(1), word(9)]
}

/// The digest of live memory as words of a shadow.
pub(crate) fn span_words(span: Span) -> [u64; 2] {
    if span.is_empty() {
        return digest_words(&chipmink_digest::digest(&[]));
    }
    digest_words(&live_digest(span.start as *const u8, span.len()))
}

/// Root and chunks of what a region was when it was saved last, if it was cut at the same places as far as both reach.
pub(crate) fn previous_version(known: &RegionRecord, now: &RegionRecord) -> Option<(Digest, u64)> {
    let cut = |record: &RegionRecord| (record.grid, record.row_len, record.first_chunk_len);
    let grid = Grid::of(known).ok().filter(|_| cut(known) == cut(now))?;
    Some((known.root, grid.chunk_count()))
}

/// A region to be stored.
#[derive(Clone, Copy)]
pub(crate) struct Content {
    pub span: Span,
    pub grid: (GridKind, u64),
    /// Where the view of the object that stores it begins in it.
    pub byte_offset: u64,
    /// Nobody can write to it, so that it need not be copied before it is digested.
    pub is_frozen: bool,
}

impl Content {
    pub(crate) fn run(span: Span) -> Self {
        Content { span, grid: RUN, byte_offset: 0, is_frozen: false }
    }

    pub(crate) fn record(&self) -> RegionRecord {
        RegionRecord {
            grid: self.grid.0,
            row_len: self.grid.1,
            first_chunk_len: 0,
            byte_len: self.span.len() as u64,
            buffer_id: 0,
            root: Digest::xxh3([0; 16]),
            views: vec![ViewRecord { byte_offset: self.byte_offset }],
        }
    }
}

impl Walker<'_, '_> {
    /// Stores a region of the current pod. Returns its ordinal there.
    pub(crate) fn region(&mut self, content: Content) -> Step<u32> {
        if self.stream.is_some() {
            // SAFETY: the caller keeps so many bytes alive; they are copied at once.
            let copy =
                unsafe { std::slice::from_raw_parts(content.span.start as *const u8, content.span.len()) };
            return Ok(self.stream_region(StreamRegion::Inline(copy.to_vec()), &content));
        }
        let ordinal = self.builder().regions.len();
        let pod = self.current_pod();
        let known = self.session.pod(pod).and_then(|state| state.record.regions.get(ordinal).cloned());
        let mut record = self.region_record(&content, known.as_ref())?;
        record.buffer_id = known.map_or(0, |known| known.buffer_id);
        self.builder().regions.push(record);
        Ok(ordinal as u32)
    }

    pub(crate) fn stream_region(&mut self, region: StreamRegion, content: &Content) -> u32 {
        if let Some(stream) = &mut self.stream {
            stream.regions.push(region);
        }
        let record = content.record();
        let builder = self.builder();
        builder.regions.push(record);
        builder.regions.len() as u32 - 1
    }

    /// A region that the caller of `dumps` has taken over.
    pub(crate) fn outside_region(&mut self) -> u32 {
        self.stream_region(StreamRegion::OutOfBand, &Content::run(Span { start: 0, end: 0 }))
    }

    /// What a region's row says of it, with its chunks and nodes in the sink. `known`: what was stored of it last.
    pub(crate) fn region_record(
        &mut self,
        content: &Content,
        known: Option<&RegionRecord>,
    ) -> Step<RegionRecord> {
        let mut record = content.record();
        if self.memory.is_survey {
            return Ok(record);
        }
        let key = (content.span.start, content.span.end, content.grid.1);
        if let Some(root) = self.hashed.get(&key) {
            record.root = *root;
            return Ok(record);
        }
        let grid = Grid::of(&record).map_err(|error| {
            let len = content.span.len();
            pyo3::exceptions::PyValueError::new_err(format!("a region of {len} bytes: {error}"))
        })?;
        let guessed = match known {
            Some(known) => {
                self.earlier.note_continued(&known.root, known);
                None
            }
            None => self.earlier_version(&record),
        };
        let known = known.or(guessed.as_ref());
        let same_grid = |known: &&RegionRecord| {
            (known.grid, known.row_len, known.byte_len) == (record.grid, record.row_len, record.byte_len)
        };
        let known_root = known.filter(same_grid).map(|known| known.root);
        let previous = known.and_then(|known| previous_version(known, &record));
        let outline = RegionOutline { chunk_count: grid.chunk_count(), previous };
        let forecast = self.sink.begin_region(&outline);
        let waits = self.waits;
        record.root = match known_root {
            // To digest what will be copied anyway would be in vain.
            Some(root) if !content.is_frozen && !forecast.is_always_dirty => {
                self.changed_region(content, &grid, root)?
            }
            _ => self.new_region(content, &grid)?,
        };
        self.recheck(content, &grid, record.root, waits)?;
        self.hashed.insert(key, record.root);
        Ok(record)
    }

    /// Hashes memory whose chunks are probably stored: first all of it, then what is missing is copied.
    fn changed_region(&mut self, content: &Content, grid: &Grid, known: Digest) -> Step<Digest> {
        let mut digests = self.live_digests(content.span, &content.record(), grid)?;
        if root_of(&digests) == known {
            return Ok(known);
        }
        let mut missing = Vec::new();
        for (ordinal, (digest, chunk)) in digests.iter().zip(grid.chunks()).enumerate() {
            if !self.holds(digest) {
                missing.push((ordinal, chunk));
            }
        }
        self.sink.expect_chunks(missing.iter().map(|(_, (_, len))| len).sum());
        let mut copy = Vec::new();
        for (ordinal, (offset, len)) in missing {
            let start = content.span.start + offset as usize;
            digests[ordinal] = self.store_chunk(ordinal as u64, start, len as usize, &mut copy)?;
        }
        self.store_tree(&digests)
    }

    fn new_region(&mut self, content: &Content, grid: &Grid) -> Step<Digest> {
        let mut digests = Vec::with_capacity(grid.chunk_count() as usize);
        let mut copy = Vec::new();
        let record = content.record();
        let look = if content.is_frozen { Look::default() } else { self.look(content.span, &record, grid) };
        let mut edges = Vec::new();
        let unknown = grid.chunks().enumerate().filter(|(i, _)| look.digest(*i as u64).is_none());
        self.sink.expect_chunks(unknown.map(|(_, (_, len))| len).sum());
        let mut hashed = 0;
        for (i, (offset, len)) in grid.chunks().enumerate() {
            if i % 1024 == 1023 {
                self.check_signals()?;
            }
            if let Some(digest) = look.digest(i as u64)
                && self.holds(&digest)
            {
                digests.push(digest);
                continue;
            }
            hashed += len;
            let start = content.span.start + offset as usize;
            digests.push(if content.is_frozen {
                // SAFETY: the grid stays inside the region, which its owner keeps alive and nobody writes to.
                let chunk = unsafe { std::slice::from_raw_parts(start as *const u8, len as usize) };
                let digest = chipmink_digest::digest(chunk);
                self.put_chunk(i as u64, digest, chunk)?;
                digest
            } else {
                let digest = self.store_chunk(i as u64, start, len as usize, &mut copy)?;
                edges.extend(edges_of_copy(start, &copy, look.page_len).map(|edges| (i as u64, edges)));
                digest
            });
        }
        self.learn(content.span, &record, &look, &digests, edges, hashed);
        self.store_tree(&digests)
    }

    fn store_chunk(&mut self, ordinal: u64, start: usize, len: usize, copy: &mut Vec<u8>) -> Step<Digest> {
        copy.clear();
        // SAFETY: the grid stays inside the region, which its owner keeps alive.
        copy.extend_from_slice(unsafe { std::slice::from_raw_parts(start as *const u8, len) });
        let digest = chipmink_digest::digest(copy);
        self.put_chunk(ordinal, digest, copy)?;
        Ok(digest)
    }

    pub(crate) fn store_tree(&mut self, digests: &[Digest]) -> Step<Digest> {
        let root = put_tree(digests, |digest, bytes| self.put(BlobKind::DigestNode, digest, bytes))?;
        self.sink.end_region(root);
        Ok(root)
    }

    /// Writes a reference to a region. Returns its memo number.
    pub(crate) fn write_region(&mut self, kind: u8, region: u32) -> u32 {
        let builder = self.builder();
        builder.byte(tag::REGION);
        builder.byte(kind);
        builder.varint(u64::from(region));
        builder.varint(0);
        builder.take_number()
    }

    /// An atom of at least the threshold: a region of its own, at each place where it stands.
    pub(crate) fn large_atom(&mut self, object: Obj, at: At) -> Step {
        self.large_atom_word(object, at)?;
        if let Some(number) = self.builder().local_number(object) {
            self.builder().reference(number);
            return Ok(());
        }
        let frozen = |bytes: &[u8]| {
            let start = bytes.as_ptr() as usize;
            Content { is_frozen: true, ..Content::run(Span { start, end: start + bytes.len() }) }
        };
        // A signal handler may run meanwhile and drop every other reference.
        let _alive = object.bound(self.py);
        let (region, kind) = if object.is_int() {
            let bytes = super::builder::big_int_bytes(object);
            let region = self.region(frozen(&bytes))?;
            // The bytes are gone when this returns: their place says nothing about what will lie there.
            self.hashed.remove(&(bytes.as_ptr() as usize, bytes.as_ptr() as usize + bytes.len(), 0));
            (region, tag::REGION_INT)
        } else if object.is_bytes() {
            (self.region(frozen(object.bytes_slice()))?, tag::REGION_BYTES)
        } else {
            let kind = match object.str_width() {
                1 if object.str_is_ascii() => tag::REGION_STR1_ASCII,
                1 => tag::REGION_STR1,
                2 => tag::REGION_STR2,
                _ => tag::REGION_STR4,
            };
            (self.region(frozen(object.str_raw()))?, kind)
        };
        let number = self.write_region(kind, region);
        self.builder().set_local_number(object, number);
        Ok(())
    }
}

/// Puts the nodes of the digest tree of a region. Returns its root.
pub(crate) fn put_tree(
    digests: &[Digest],
    mut put: impl FnMut(Digest, &[u8]) -> Result<bool, BlobError>,
) -> Result<Digest, BlobError> {
    tree_of(digests).finish(&mut |digest, bytes| put(digest, bytes).map(drop))
}

fn tree_of(digests: &[Digest]) -> TreeBuilder {
    let mut tree = TreeBuilder::new(NodeKind::Region);
    digests.iter().for_each(|digest| tree.push(*digest));
    tree
}

pub(crate) fn root_of(digests: &[Digest]) -> Digest {
    let root: Result<Digest, std::convert::Infallible> = tree_of(digests).finish(&mut |_, _| Ok(()));
    match root {
        Ok(root) => root,
        Err(never) => match never {},
    }
}
