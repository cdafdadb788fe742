//! Checking packs, several at a time.

use crate::error::Result;
use crate::index::Found;
use crate::inner::Inner;
use crate::pack_check::{check_blobs, check_structure};
use crate::parallel::in_parallel;
use chipmink_digest::digest;
use chipmink_format::{IndexRow, PackInfo, PackName};
use chipmink_types::Digest;
use hashbrown::HashSet;

/// Packs that are checked at once.
const THREADS: usize = 4;

/// What was found of a pack.
#[derive(Debug, Default)]
pub(super) struct Exam {
    pub(super) problems: Vec<String>,
    /// What tells the rows whose blobs are what they should be.
    pub(super) sound: Vec<u64>,
}

/// Checks packs: their structure, and in full each of their bytes.
pub(super) fn examine(source: &Inner, packs: &[PackInfo], is_full: bool) -> Vec<Exam> {
    in_parallel(packs, THREADS, |pack| {
        let mut exam = Exam::default();
        let checked = examine_one(source, pack, is_full, &mut exam);
        exam.problems.extend(checked.err().map(|error| error.to_string()));
        exam
    })
}

fn examine_one(source: &Inner, pack: &PackInfo, is_full: bool, exam: &mut Exam) -> Result<()> {
    let rows = check_structure(&source.backend, pack)?;
    if !is_full {
        return Ok(());
    }
    let Exam { problems, sound } = exam;
    let mut good = |row: &IndexRow| {
        // Of a delta only the checksum is known yet.
        if row.base.is_none() {
            sound.push(mark(&row.digest, pack.name, row.byte_offset, row.stored_len, row.codec as u8));
        }
    };
    let mut bad = |_: Option<&IndexRow>, error: crate::StoreError| {
        problems.push(error.to_string());
        Ok(())
    };
    check_blobs(&source.backend, pack, &rows, source.options.blob_bytes_max, &mut good, &mut bad)
}

/// A number that tells a row from every other.
fn mark(name: &Digest, pack: PackName, byte_offset: u64, stored_len: u64, codec: u8) -> u64 {
    let mut bytes = name.as_bytes().to_vec();
    bytes.extend_from_slice(&pack.0);
    bytes.extend_from_slice(&byte_offset.to_le_bytes());
    bytes.extend_from_slice(&stored_len.to_le_bytes());
    bytes.push(codec);
    let name = digest(&bytes);
    let tail = name.as_bytes().last_chunk::<8>().copied().unwrap_or_default();
    u64::from_le_bytes(tail)
}

/// Whether a blob, where the index says that it lies, was found sound.
pub(super) fn is_sound(source: &Inner, sound: &HashSet<u64>, name: &Digest, found: &Found) -> bool {
    let location = found.location;
    let pack = source.index().pack(location.pack).name;
    found.base.is_none()
        && sound.contains(&mark(name, pack, location.byte_offset, location.stored_len, location.codec as u8))
}
