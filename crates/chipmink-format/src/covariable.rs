//! Co-variables and definition groups: names, and the table of pods.
//!
//! ```text
//! 'V' 1  names: varint count, (str name, varint slot, varint export slot)…
//!        groups: varint count, digest…            blobs of definition groups, by ordinal
//!        varint next slot
//!        table: u8 0 no table, 1 digest of the root, 2 varint length and bytes of a leaf
//!        extensions
//! ```
//!
//! A definition group is the same without names. Groups name other groups, never in a circle: a name is a digest.

use crate::error::{FormatError, Result};
use crate::extensions::Extensions;
use crate::tree::{Tree, TreeRoot};
use crate::wire::{Input, put_bytes, put_digest, put_str, put_varint};
use bytes::Bytes;
use chipmink_digest::digest;
use chipmink_types::{BlobKind, BlobSink, BlobSource, DIGEST_LEN, Digest, Slot};

const LETTER: u8 = b'V';
/// A table whose only leaf has at most this many bytes stands in the co-variable's own blob.
pub const TABLE_INLINE_MAX: usize = 1024;
/// A co-variable of at most this many bytes and with one name stands in the manifest's row.
pub const COVARIABLE_INLINE_MAX: usize = 192;
/// Definition groups may name groups, to this depth.
pub const GROUP_DEPTH_MAX: usize = 64;

/// A name of a co-variable, and where its object is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct NamedRoot {
    /// The variable.
    pub name: String,
    /// The pod, by its row in the table.
    pub slot: Slot,
    /// The export slot of that pod.
    pub export: u32,
}

/// A co-variable, or a definition group if it has no names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Covariable {
    /// Its names, in the order of their bytes.
    pub names: Vec<NamedRoot>,
    /// Blobs of the definition groups that rows name by ordinal.
    pub groups: Vec<Digest>,
    /// The lowest slot that was never used; lower ones that have no row are free.
    pub next_slot: u32,
    /// Pod table: key is the slot ([`crate::slot_key`]), value a [`crate::PodRow`].
    pub table: Tree,
    /// What later versions add.
    pub extensions: Extensions,
}

/// Where a co-variable's bytes are.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum CovariableRef {
    /// In a blob.
    Stored(Digest),
    /// In the manifest's row.
    Inline(Bytes),
}

impl CovariableRef {
    /// Its identity: equal co-variables have equal digests, wherever their bytes are.
    pub fn digest(&self) -> Digest {
        match self {
            CovariableRef::Stored(digest) => *digest,
            CovariableRef::Inline(bytes) => digest(bytes),
        }
    }

    /// The co-variable.
    ///
    /// # Errors
    /// When it is missing, damaged, or of a later version.
    pub fn load(&self, source: &dyn BlobSource) -> Result<Covariable> {
        match self {
            CovariableRef::Inline(bytes) => Covariable::decode(bytes),
            CovariableRef::Stored(digest) => Covariable::load(digest, source),
        }
    }
}

impl Covariable {
    /// The co-variable or definition group in a blob.
    ///
    /// # Errors
    /// When it is missing, damaged, or of a later version.
    pub fn load(name: &Digest, source: &dyn BlobSource) -> Result<Self> {
        Covariable::decode(&source.get(name)?).map_err(|error| error.in_blob(name))
    }

    /// The name's entry.
    pub fn find(&self, name: &str) -> Option<&NamedRoot> {
        self.names.binary_search_by(|root| root.name.as_str().cmp(name)).ok().map(|at| &self.names[at])
    }

    /// Its bytes.
    ///
    /// # Panics
    /// When the names are not in the order of their bytes, which is a mistake of the caller.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.names.is_sorted_by(|a, b| a.name < b.name), "names must ascend and not repeat");
        let mut out = vec![LETTER, 1];
        put_varint(&mut out, self.names.len() as u64);
        for root in &self.names {
            put_str(&mut out, &root.name);
            put_varint(&mut out, root.slot.0.into());
            put_varint(&mut out, root.export.into());
        }
        put_varint(&mut out, self.groups.len() as u64);
        self.groups.iter().for_each(|group| put_digest(&mut out, group));
        put_varint(&mut out, self.next_slot.into());
        match self.table.root() {
            None => out.push(0),
            Some(TreeRoot::Stored(root)) => {
                out.push(1);
                put_digest(&mut out, root);
            }
            Some(TreeRoot::Inline(leaf)) => {
                out.push(2);
                put_bytes(&mut out, leaf);
            }
        }
        self.extensions.encode(&mut out);
        out
    }

    /// Decodes what [`Covariable::encode`] made.
    ///
    /// # Errors
    /// When the bytes are damaged or of a later version.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut input = Input::with_header("co-variable", LETTER, bytes)?;
        let count = input.count(3)?;
        let mut names: Vec<NamedRoot> = Vec::with_capacity(count);
        for _ in 0..count {
            let name = input.string()?;
            if names.last().is_some_and(|last| last.name >= name) {
                return Err(input.damaged("names do not ascend"));
            }
            names.push(NamedRoot { name, slot: Slot(input.varint_u32()?), export: input.varint_u32()? });
        }
        let count = input.count(DIGEST_LEN)?;
        let groups = (0..count).map(|_| input.digest()).collect::<Result<Vec<_>>>()?;
        let next_slot = input.varint_u32()?;
        let table = match input.u8()? {
            0 => Tree::empty(),
            1 => Tree::open(input.digest()?),
            2 => Tree::with_root(TreeRoot::Inline(Bytes::copy_from_slice(input.bytes()?))),
            other => return Err(input.unsupported(format!("table root {other}"))),
        };
        let extensions = input.extensions()?;
        input.end()?;
        Ok(Covariable { names, groups, next_slot, table, extensions })
    }

    /// Puts it where it belongs: into the manifest's row if it is small and has one name, else into a blob.
    ///
    /// # Errors
    /// When the sink fails.
    pub fn store(&self, sink: &mut dyn BlobSink) -> Result<CovariableRef> {
        let bytes = self.encode();
        if self.names.len() == 1 && bytes.len() <= COVARIABLE_INLINE_MAX {
            return Ok(CovariableRef::Inline(bytes.into()));
        }
        store_bytes(&bytes, sink).map(CovariableRef::Stored)
    }

    /// Puts it into a blob, as definition groups always are.
    ///
    /// # Errors
    /// When the sink fails.
    pub fn store_blob(&self, sink: &mut dyn BlobSink) -> Result<Digest> {
        store_bytes(&self.encode(), sink)
    }
}

fn store_bytes(bytes: &[u8], sink: &mut dyn BlobSink) -> Result<Digest> {
    let name = digest(bytes);
    sink.put(BlobKind::Table, name, bytes).map_err(FormatError::from)?;
    Ok(name)
}

#[cfg(test)]
mod tests;
