//! The row of a pod in the table of its co-variable or definition group.
//!
//! The key is the slot, as u32 big-endian. The value is
//!
//! ```text
//! flags varint, rank, digest, byte_len varint, the lists that are present, side digest, extensions
//! rank = u8 trailing zero bits, varint rest
//! list = varint length and items, or the digest of a list tree if it is longer than 512 B
//! ```
//!
//! Lists, in this order: exports, dependencies, globals, shapes, regions, names. Bit k of the flags says that list k is
//! present, bit 7 + k that it is a tree. An absent list is empty; absent exports are the single first root, which is
//! what nearly every pod offers. Bit 6: a side record. Bit 13: extensions.
//!
//! Invariant: a row has one encoding, so an unchanged row never rewrites its leaf.

pub(crate) mod parts;

pub use parts::{Dependency, RowShape};

use crate::error::Result;
use crate::extensions::Extensions;
use crate::list::{LIST_INLINE_MAX, LIST_LEN_MAX, load_list, store_list};
use crate::wire::{Input, put_bytes, put_digest, put_order, put_varint};
use chipmink_types::{BlobSink, BlobSource, Digest, Export, RegionRecord, Slot};
use parts::Items;

const LISTS: u32 = 6;
const SIDE: u64 = 1 << 6;
const TREE_SHIFT: u32 = 7;
const EXTENSIONS: u64 = 1 << 13;
const KNOWN: u64 = (1 << 14) - 1;

/// What a table says of a pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodRow {
    /// Sparse order label: a load runs pods in ascending rank.
    pub rank: u64,
    /// Digest of the pod's bytes.
    pub digest: Digest,
    /// Length of the pod's bytes.
    pub byte_len: u64,
    /// Export slot to what it offers.
    pub exports: Vec<Export>,
    /// Dependency slot to pod.
    pub dependencies: Vec<Dependency>,
    /// Global ordinal to descriptor ([`crate::encode_global`]).
    pub globals: Vec<Digest>,
    /// Shape ordinal to shape.
    pub shapes: Vec<RowShape>,
    /// Region ordinal to region.
    pub regions: Vec<RegionRecord>,
    /// Names of the namespace that functions of the pod read.
    pub names: Vec<String>,
    /// Blob with its side record.
    pub side: Option<Digest>,
    /// What later versions add.
    pub extensions: Extensions,
}

/// The key of the row of a pod.
pub fn slot_key(slot: Slot) -> [u8; 4] {
    slot.0.to_be_bytes()
}

/// The slot of a row, by its key.
///
/// # Errors
/// When the key is no slot.
pub fn parse_slot_key(key: &[u8]) -> Result<Slot> {
    let mut input = Input::new("pod table key", key);
    let slot = Slot(u32::from_be_bytes(input.array()?));
    input.end()?;
    Ok(slot)
}

impl PodRow {
    /// The row's bytes; lists that are too long for it go to `sink`.
    ///
    /// # Errors
    /// When the sink fails.
    pub fn encode(&self, sink: &mut dyn BlobSink) -> Result<Vec<u8>> {
        let mut flags = 0;
        let mut lists = Lists::default();
        let is_plain = self.exports == [Export::Root(0)];
        put_list(0, &self.exports, is_plain, &mut flags, &mut lists, sink)?;
        put_list(1, &self.dependencies, self.dependencies.is_empty(), &mut flags, &mut lists, sink)?;
        put_list(2, &self.globals, self.globals.is_empty(), &mut flags, &mut lists, sink)?;
        put_list(3, &self.shapes, self.shapes.is_empty(), &mut flags, &mut lists, sink)?;
        put_list(4, &self.regions, self.regions.is_empty(), &mut flags, &mut lists, sink)?;
        put_list(5, &self.names, self.names.is_empty(), &mut flags, &mut lists, sink)?;
        if self.side.is_some() {
            flags |= SIDE;
        }
        if !self.extensions.is_empty() {
            flags |= EXTENSIONS;
        }
        let mut out = Vec::with_capacity(48 + lists.done.len());
        put_varint(&mut out, flags);
        put_order(&mut out, self.rank);
        put_digest(&mut out, &self.digest);
        put_varint(&mut out, self.byte_len);
        out.extend_from_slice(&lists.done);
        if let Some(side) = &self.side {
            put_digest(&mut out, side);
        }
        if !self.extensions.is_empty() {
            self.extensions.encode(&mut out);
        }
        Ok(out)
    }

    /// Decodes a row; lists that are trees are read from `source`.
    ///
    /// # Errors
    /// When the row or one of its lists is damaged, missing, or of a later version.
    pub fn decode(bytes: &[u8], source: &dyn BlobSource) -> Result<Self> {
        let mut input = Input::new("pod row", bytes);
        let flags = input.varint()?;
        if flags & !KNOWN != 0 {
            return Err(input.unsupported(format!("row flags {flags:#x}")));
        }
        let rank = input.order()?;
        let digest = input.digest()?;
        let byte_len = input.varint()?;
        let exports = match list(0, flags, &mut input, source)? {
            Some(exports) if exports == [Export::Root(0)] => {
                return Err(input.damaged("the plain export is written out"));
            }
            Some(exports) => exports,
            None => vec![Export::Root(0)],
        };
        let dependencies = filled(1, flags, &mut input, source)?;
        let globals = filled(2, flags, &mut input, source)?;
        let shapes = filled(3, flags, &mut input, source)?;
        let regions = filled(4, flags, &mut input, source)?;
        let names = filled(5, flags, &mut input, source)?;
        let side = if flags & SIDE != 0 { Some(input.digest()?) } else { None };
        let extensions = if flags & EXTENSIONS != 0 { input.extensions()? } else { Extensions::default() };
        if flags & EXTENSIONS != 0 && extensions.is_empty() {
            return Err(input.damaged("extensions without one"));
        }
        input.end()?;
        Ok(PodRow {
            rank,
            digest,
            byte_len,
            exports,
            dependencies,
            globals,
            shapes,
            regions,
            names,
            side,
            extensions,
        })
    }
}

/// The lists of a row that is being encoded.
#[derive(Default)]
struct Lists {
    /// As they will stand in the row.
    done: Vec<u8>,
    /// The items of the current one.
    items: Vec<u8>,
}

fn put_list<T: Items>(
    number: u32,
    items: &[T],
    is_absent: bool,
    flags: &mut u64,
    lists: &mut Lists,
    sink: &mut dyn BlobSink,
) -> Result<()> {
    debug_assert!(number < LISTS);
    if is_absent {
        return Ok(());
    }
    *flags |= 1 << number;
    let bytes = &mut lists.items;
    bytes.clear();
    T::encode_all(items, bytes);
    if bytes.len() <= LIST_INLINE_MAX {
        put_bytes(&mut lists.done, bytes);
    } else {
        *flags |= 1 << (TREE_SHIFT + number);
        put_digest(&mut lists.done, &store_list(bytes, sink)?);
    }
    Ok(())
}

/// `None`: the list is absent.
fn list<T: Items>(
    number: u32,
    flags: u64,
    input: &mut Input<'_>,
    source: &dyn BlobSource,
) -> Result<Option<Vec<T>>> {
    let is_tree = flags & 1 << (TREE_SHIFT + number) != 0;
    if flags & 1 << number == 0 {
        return if is_tree { Err(input.damaged("an absent list is a tree")) } else { Ok(None) };
    }
    if !is_tree {
        let bytes = input.bytes()?;
        if bytes.len() > LIST_INLINE_MAX {
            return Err(input.damaged(format!("a list of {} bytes stands in the row", bytes.len())));
        }
        return T::decode_all(&mut Input::new("list of a pod row", bytes)).map(Some);
    }
    let root = input.digest()?;
    let bytes = load_list(&root, LIST_LEN_MAX, source)?;
    if bytes.len() <= LIST_INLINE_MAX {
        return Err(input.damaged(format!("a list of {} bytes is a tree", bytes.len())).in_blob(&root));
    }
    let items = T::decode_all(&mut Input::new("list of a pod row", &bytes));
    items.map(Some).map_err(|error| error.in_blob(&root))
}

fn filled<T: Items>(
    number: u32,
    flags: u64,
    input: &mut Input<'_>,
    source: &dyn BlobSource,
) -> Result<Vec<T>> {
    match list::<T>(number, flags, input, source)? {
        Some(items) if items.is_empty() => Err(input.damaged("an empty list is written out")),
        Some(items) => Ok(items),
        None => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests;
