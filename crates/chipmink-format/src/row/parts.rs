//! The lists of a pod's row, item by item.

use crate::error::Result;
use crate::wire::{Input, put_digest, put_str, put_varint, unzigzag, zigzag};
use chipmink_types::{Digest, Export, GridKind, RegionRecord, ShapeClass, Slot, ViewRecord};

/// Another pod that a pod refers to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dependency {
    /// A pod of the same table.
    Local(Slot),
    /// A pod of a definition group.
    Definition {
        /// Ordinal of the group in the owner of the table.
        group: u32,
        /// Row of the pod there.
        slot: Slot,
    },
}

/// A shape, its names by digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RowShape {
    /// The class.
    pub class: ShapeClass,
    /// Blob with the attribute names ([`crate::encode_names`]).
    pub names: Digest,
}

/// How one kind of list item is written.
pub(super) trait Items: Sized {
    fn encode_all(items: &[Self], out: &mut Vec<u8>);
    fn decode_all(input: &mut Input<'_>) -> Result<Vec<Self>>;
}

impl Items for Export {
    fn encode_all(items: &[Self], out: &mut Vec<u8>) {
        items.iter().for_each(|item| put_export(out, *item));
    }

    fn decode_all(input: &mut Input<'_>) -> Result<Vec<Self>> {
        until_end(input, export)
    }
}

/// 0: vacant, 2k + 1: root k, 2k + 2: memo number k.
pub(crate) fn put_export(out: &mut Vec<u8>, item: Export) {
    let number = match item {
        Export::Vacant => 0,
        Export::Root(k) => 2 * u64::from(k) + 1,
        Export::Memo(k) => 2 * u64::from(k) + 2,
    };
    put_varint(out, number);
}

pub(crate) fn export(input: &mut Input<'_>) -> Result<Export> {
    let number = input.varint()?;
    let Some(above) = number.checked_sub(1) else { return Ok(Export::Vacant) };
    let Ok(k) = u32::try_from(above / 2) else {
        return Err(input.damaged("an export of a number above 2^32"));
    };
    Ok(if above % 2 == 0 { Export::Root(k) } else { Export::Memo(k) })
}

impl Items for Dependency {
    /// A local slot is written as its distance from the local slot before it: neighbours are mostly neighbours.
    fn encode_all(items: &[Self], out: &mut Vec<u8>) {
        let mut before = 0;
        for item in items {
            match item {
                Dependency::Local(slot) => {
                    put_varint(out, zigzag(i64::from(slot.0) - before) << 1);
                    before = i64::from(slot.0);
                }
                Dependency::Definition { group, slot } => {
                    put_varint(out, u64::from(*group) << 1 | 1);
                    put_varint(out, slot.0.into());
                }
            }
        }
    }

    fn decode_all(input: &mut Input<'_>) -> Result<Vec<Self>> {
        let mut before = 0i64;
        until_end(input, |input| {
            let number = input.varint()?;
            if number & 1 == 1 {
                let Ok(group) = u32::try_from(number >> 1) else {
                    return Err(input.damaged("a definition group above 2^32"));
                };
                return Ok(Dependency::Definition { group, slot: Slot(input.varint_u32()?) });
            }
            let slot = before.checked_add(unzigzag(number >> 1)).and_then(|slot| u32::try_from(slot).ok());
            let Some(slot) = slot else { return Err(input.damaged("a slot outside 32 bits")) };
            before = i64::from(slot);
            Ok(Dependency::Local(Slot(slot)))
        })
    }
}

impl Items for Digest {
    fn encode_all(items: &[Self], out: &mut Vec<u8>) {
        items.iter().for_each(|item| put_digest(out, item));
    }

    fn decode_all(input: &mut Input<'_>) -> Result<Vec<Self>> {
        until_end(input, |input| input.digest())
    }
}

impl Items for RowShape {
    fn encode_all(items: &[Self], out: &mut Vec<u8>) {
        for item in items {
            put_class(out, item.class);
            put_digest(out, &item.names);
        }
    }

    fn decode_all(input: &mut Input<'_>) -> Result<Vec<Self>> {
        until_end(input, |input| Ok(RowShape { class: class(input)?, names: input.digest()? }))
    }
}

impl Items for String {
    fn encode_all(items: &[Self], out: &mut Vec<u8>) {
        items.iter().for_each(|item| put_str(out, item));
    }

    fn decode_all(input: &mut Input<'_>) -> Result<Vec<Self>> {
        until_end(input, |input| input.string())
    }
}

impl Items for RegionRecord {
    fn encode_all(items: &[Self], out: &mut Vec<u8>) {
        items.iter().for_each(|item| put_region(out, item));
    }

    fn decode_all(input: &mut Input<'_>) -> Result<Vec<Self>> {
        until_end(input, region)
    }
}

fn until_end<T>(input: &mut Input<'_>, mut item: impl FnMut(&mut Input<'_>) -> Result<T>) -> Result<Vec<T>> {
    let mut items = Vec::new();
    while !input.is_at_end() {
        items.push(item(input)?);
    }
    Ok(items)
}

/// `2 * global ordinal`, or `2 * dependency slot + 1` and the export slot there.
pub(crate) fn put_class(out: &mut Vec<u8>, class: ShapeClass) {
    match class {
        ShapeClass::Global(k) => put_varint(out, u64::from(k) << 1),
        ShapeClass::Dependency(slot, export) => {
            put_varint(out, u64::from(slot) << 1 | 1);
            put_varint(out, export.into());
        }
    }
}

pub(crate) fn class(input: &mut Input<'_>) -> Result<ShapeClass> {
    let number = input.varint()?;
    let Ok(k) = u32::try_from(number >> 1) else {
        return Err(input.damaged("a class ordinal above 2^32"));
    };
    Ok(if number & 1 == 0 { ShapeClass::Global(k) } else { ShapeClass::Dependency(k, input.varint_u32()?) })
}

/// Bits of a region's first byte, beside the grid kind in the lowest two.
const HAS_BUFFER_ID: u8 = 1 << 2;
const HAS_VIEWS: u8 = 1 << 3;
const GRID_MASK: u8 = 3;

fn put_region(out: &mut Vec<u8>, region: &RegionRecord) {
    // Nearly every region has the one view that begins where it begins.
    let is_plain = region.views == [ViewRecord { byte_offset: 0 }];
    let buffer = if region.buffer_id == 0 { 0 } else { HAS_BUFFER_ID };
    out.push(region.grid as u8 | buffer | if is_plain { 0 } else { HAS_VIEWS });
    match region.grid {
        GridKind::Run => {}
        GridKind::Rows => put_varint(out, region.row_len),
        GridKind::Shard => put_varint(out, region.first_chunk_len),
    }
    put_varint(out, region.byte_len);
    if region.buffer_id != 0 {
        put_varint(out, region.buffer_id);
    }
    put_digest(out, &region.root);
    if !is_plain {
        put_views(out, &region.views);
    }
}

fn region(input: &mut Input<'_>) -> Result<RegionRecord> {
    let flags = input.u8()?;
    let grid = match flags & GRID_MASK {
        0 => GridKind::Run,
        1 => GridKind::Rows,
        2 => GridKind::Shard,
        other => return Err(input.unsupported(format!("region grid {other}"))),
    };
    if flags & !(GRID_MASK | HAS_BUFFER_ID | HAS_VIEWS) != 0 {
        return Err(input.unsupported(format!("region flags {flags:#04x}")));
    }
    let row_len = if grid == GridKind::Rows { input.varint()? } else { 0 };
    let first_chunk_len = if grid == GridKind::Shard { input.varint()? } else { 0 };
    let byte_len = input.varint()?;
    let buffer_id = if flags & HAS_BUFFER_ID != 0 { input.varint()? } else { 0 };
    if flags & HAS_BUFFER_ID != 0 && buffer_id == 0 {
        return Err(input.damaged("buffer 0 is written out"));
    }
    let root = input.digest()?;
    let views = if flags & HAS_VIEWS != 0 { views(input)? } else { vec![ViewRecord { byte_offset: 0 }] };
    if flags & HAS_VIEWS != 0 && views == [ViewRecord { byte_offset: 0 }] {
        return Err(input.damaged("the plain view is written out"));
    }
    if let Some(view) = views.iter().find(|view| view.byte_offset > byte_len) {
        return Err(input.damaged(format!("a view at byte {} of {byte_len}", view.byte_offset)));
    }
    let region = RegionRecord { grid, row_len, first_chunk_len, byte_len, buffer_id, root, views };
    match chipmink_digest::Grid::of(&region) {
        Ok(_) => Ok(region),
        Err(error) => Err(input.damaged(error.to_string())),
    }
}

pub(crate) fn put_views(out: &mut Vec<u8>, views: &[ViewRecord]) {
    put_varint(out, views.len() as u64);
    views.iter().for_each(|view| put_varint(out, view.byte_offset));
}

pub(crate) fn views(input: &mut Input<'_>) -> Result<Vec<ViewRecord>> {
    let count = input.count(1)?;
    (0..count).map(|_| Ok(ViewRecord { byte_offset: input.varint()? })).collect()
}
