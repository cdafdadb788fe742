//! The manifest: from each name of a namespace to what it refers to.
//!
//! It is a table ([`crate::Tree`]) whose key is the name in UTF-8 and whose value is an order label and then, by kind:
//!
//! ```text
//! 0  one value of the pod stream           an exact immutable atom
//! 1  str module, str qualname              an object saved by name; an empty qualname is the module itself
//! 2  digest                                the blob of its co-variable
//! 3  bytes                                 its co-variable
//! 4  str path, str type name, str reason   not saved
//! ```
//!
//! Ascending order labels give the order of the namespace.

use crate::covariable::CovariableRef;
use crate::descriptor::{global, put_global};
use crate::error::Result;
use crate::tree::Tree;
use crate::wire::{Input, put_digest, put_order, put_str};
use bytes::Bytes;
use chipmink_types::{BlobSource, Digest, GlobalName, SkippedVariable};

/// Longest of the three texts of a skipped variable, in bytes; longer ones are cut.
const SKIPPED_TEXT_MAX: usize = 512;
/// Longest inline atom, in bytes.
pub const INLINE_ATOM_MAX: usize = 64;

/// What a name refers to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ManifestValue {
    /// One value of the pod stream, at most [`INLINE_ATOM_MAX`] bytes.
    Inline(Bytes),
    /// An object saved by name.
    Named(GlobalName),
    /// An object of a co-variable.
    Covariable(CovariableRef),
    /// Not saved; loads as a placeholder.
    Skipped(SkippedVariable),
}

/// A row of the manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ManifestRow {
    /// Sparse order label: the rows in its ascending order are the namespace in its order.
    pub order: u64,
    /// What the name refers to.
    pub value: ManifestValue,
}

impl ManifestRow {
    /// The row's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        put_order(&mut out, self.order);
        match &self.value {
            ManifestValue::Inline(atom) => {
                out.push(0);
                out.extend_from_slice(atom);
            }
            ManifestValue::Named(name) => {
                out.push(1);
                put_global(&mut out, name);
            }
            ManifestValue::Covariable(CovariableRef::Stored(digest)) => {
                out.push(2);
                put_digest(&mut out, digest);
            }
            ManifestValue::Covariable(CovariableRef::Inline(bytes)) => {
                out.push(3);
                out.extend_from_slice(bytes);
            }
            ManifestValue::Skipped(skipped) => {
                out.push(4);
                for text in [&skipped.path, &skipped.type_name, &skipped.reason] {
                    put_str(&mut out, cut(text));
                }
            }
        }
        out
    }

    /// Decodes what [`ManifestRow::encode`] made.
    ///
    /// # Errors
    /// When the bytes are damaged or of a later version.
    pub fn decode(bytes: &Bytes) -> Result<Self> {
        let mut input = Input::new("manifest row", bytes);
        let order = input.order()?;
        let kind = input.u8()?;
        let value = match kind {
            0 if input.left() > INLINE_ATOM_MAX => return Err(input.damaged("an inline atom is too long")),
            0 => ManifestValue::Inline(bytes.slice_ref(input.take(input.left())?)),
            1 => ManifestValue::Named(global(&mut input)?),
            2 => ManifestValue::Covariable(CovariableRef::Stored(input.digest()?)),
            3 => ManifestValue::Covariable(CovariableRef::Inline(bytes.slice_ref(input.take(input.left())?))),
            4 => ManifestValue::Skipped(SkippedVariable {
                path: input.string()?,
                type_name: input.string()?,
                reason: input.string()?,
            }),
            other => return Err(input.unsupported(format!("row kind {other}"))),
        };
        input.end()?;
        Ok(ManifestRow { order, value })
    }
}

/// The text up to [`SKIPPED_TEXT_MAX`] bytes, at a boundary of characters.
fn cut(text: &str) -> &str {
    let end = (0..=SKIPPED_TEXT_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// Every row of a manifest with its name, in the order of the namespace.
///
/// # Errors
/// When a node or row is missing, damaged, or of a later version.
pub fn read_manifest(root: Digest, source: &dyn BlobSource) -> Result<Vec<(String, ManifestRow)>> {
    let mut rows = Vec::new();
    for (key, value) in Tree::open(root).rows(source)? {
        rows.push((manifest_name(&key)?, ManifestRow::decode(&value)?));
    }
    rows.sort_by_key(|(_, row)| row.order);
    Ok(rows)
}

/// The row of one name.
///
/// # Errors
/// As [`read_manifest`].
pub fn find_in_manifest(root: Digest, name: &str, source: &dyn BlobSource) -> Result<Option<ManifestRow>> {
    Tree::open(root).get(name.as_bytes(), source)?.map(|value| ManifestRow::decode(&value)).transpose()
}

/// The name that is a row's key.
///
/// # Errors
/// When it is not UTF-8.
pub fn manifest_name(key: &[u8]) -> Result<String> {
    match std::str::from_utf8(key) {
        Ok(name) => Ok(name.to_owned()),
        Err(_) => Err(Input::new("manifest key", key).damaged("a name is not UTF-8")),
    }
}

#[cfg(test)]
mod tests;
