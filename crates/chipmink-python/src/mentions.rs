//! What versions name outside of themselves, and the sets of files that other engines have written for them.

use crate::errors::{exception, raise};
use chipmink::{FileSet, Repository, SetFile};
use chipmink_types::TimeId;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Bytes that a mark has at the least.
const MARK_MIN: usize = 8;

/// Name, its files with their lengths in bytes, when it was written in microseconds since 1970.
pub(crate) type SetLine = (String, Vec<(String, u64)>, i64);

/// For each mark, whether a pod of one of the versions holds it.
pub(crate) fn mentioned(
    py: Python<'_>,
    repository: &Repository,
    numbers: Vec<u64>,
    marks: &[Vec<u8>],
) -> PyResult<Vec<bool>> {
    if let Some(short) = marks.iter().find(|mark| mark.len() < MARK_MIN) {
        return Err(PyValueError::new_err(format!(
            "a mark has {} bytes; those of less than {MARK_MIN} stand anywhere by chance",
            short.len()
        )));
    }
    let times: Vec<TimeId> = numbers.into_iter().map(TimeId).collect();
    py.detach(|| repository.mentioned(&times, None, marks)).map_err(raise)
}

pub(crate) fn file_sets(py: Python<'_>, repository: &Repository) -> PyResult<Vec<SetLine>> {
    let sets = py.detach(|| repository.store().file_sets()).map_err(|error| raise(error.into()))?;
    Ok(sets.into_iter().map(line_of).collect())
}

fn line_of(set: FileSet) -> SetLine {
    let files = set.files.into_iter().map(|file| (file.name, file.byte_len)).collect();
    (set.name, files, set.written_at)
}

/// The names and contents of the files of a set.
pub(crate) fn read_file_set(
    py: Python<'_>,
    repository: &Repository,
    name: &str,
) -> PyResult<Vec<(String, Vec<u8>)>> {
    let set = find(py, repository, name)?;
    let Some(set) = set else {
        return Err(exception(
            "NotFoundError",
            &format!("there is no set of files {name:?} in {}", repository.place()),
        ));
    };
    let read =
        |file: &SetFile| Ok((file.name.clone(), repository.store().read_set_file(name, file)?.to_vec()));
    let read: chipmink::Result<_> = py.detach(|| set.files.iter().map(read).collect());
    read.map_err(raise)
}

pub(crate) fn delete_file_set(py: Python<'_>, repository: &Repository, name: &str) -> PyResult<()> {
    let Some(set) = find(py, repository, name)? else { return Ok(()) };
    py.detach(|| repository.store().delete_file_set(&set)).map_err(|error| raise(error.into()))
}

fn find(py: Python<'_>, repository: &Repository, name: &str) -> PyResult<Option<FileSet>> {
    let sets = py.detach(|| repository.store().file_sets()).map_err(|error| raise(error.into()))?;
    Ok(sets.into_iter().find(|set| set.name == name))
}
