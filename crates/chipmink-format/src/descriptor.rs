//! Descriptors: small blobs that rows name by digest, because many rows say the same.

use crate::error::Result;
use crate::wire::{Input, put_str, put_varint};
use chipmink_types::GlobalName;

const GLOBAL_LETTER: u8 = b'G';
const NAMES_LETTER: u8 = b'S';

/// The bytes of a global's name.
pub fn encode_global(name: &GlobalName) -> Vec<u8> {
    let mut out = vec![GLOBAL_LETTER, 1];
    put_global(&mut out, name);
    out
}

/// Decodes what [`encode_global`] made.
///
/// # Errors
/// When the bytes are damaged or of a later version.
pub fn decode_global(bytes: &[u8]) -> Result<GlobalName> {
    let mut input = Input::with_header("global descriptor", GLOBAL_LETTER, bytes)?;
    let name = global(&mut input)?;
    input.end()?;
    Ok(name)
}

/// The bytes of the attribute names of a shape: names in `__dict__`, then names of slots.
pub fn encode_names(dict_names: &[String], slot_names: &[String]) -> Vec<u8> {
    let mut out = vec![NAMES_LETTER, 1];
    put_strs(&mut out, dict_names);
    put_strs(&mut out, slot_names);
    out
}

/// Decodes what [`encode_names`] made.
///
/// # Errors
/// When the bytes are damaged or of a later version.
pub fn decode_names(bytes: &[u8]) -> Result<(Vec<String>, Vec<String>)> {
    let mut input = Input::with_header("shape descriptor", NAMES_LETTER, bytes)?;
    let names = (strs(&mut input)?, strs(&mut input)?);
    input.end()?;
    Ok(names)
}

pub(crate) fn put_global(out: &mut Vec<u8>, name: &GlobalName) {
    put_str(out, &name.module);
    put_str(out, &name.qualname);
}

pub(crate) fn global(input: &mut Input<'_>) -> Result<GlobalName> {
    Ok(GlobalName { module: input.string()?, qualname: input.string()? })
}

pub(crate) fn put_strs(out: &mut Vec<u8>, names: &[String]) {
    put_varint(out, names.len() as u64);
    names.iter().for_each(|name| put_str(out, name));
}

pub(crate) fn strs(input: &mut Input<'_>) -> Result<Vec<String>> {
    let count = input.count(1)?;
    (0..count).map(|_| input.string()).collect()
}
