//! Which of some marks stand in the pods of versions: whether anything still names what lies outside of the packs.

use crate::errors::raise;
use chipmink::Repository;
use chipmink_types::{Digest, PodSource, TimeId};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::collections::{HashMap, HashSet};

/// Bytes by which marks are told apart at first sight.
const HEAD: usize = 8;

/// For each mark, whether a pod of one of the versions holds it. Each pod is read once.
pub(crate) fn mentioned(
    py: Python<'_>,
    repository: &Repository,
    numbers: &[u64],
    marks: &[Vec<u8>],
) -> PyResult<Vec<bool>> {
    if let Some(short) = marks.iter().find(|mark| mark.len() < HEAD) {
        return Err(PyValueError::new_err(format!(
            "a mark has {} bytes; those of less than {HEAD} stand anywhere by chance",
            short.len()
        )));
    }
    py.detach(|| look(repository, numbers, marks)).map_err(raise)
}

fn look(repository: &Repository, numbers: &[u64], marks: &[Vec<u8>]) -> chipmink::Result<Vec<bool>> {
    let mut by_head: HashMap<[u8; HEAD], Vec<usize>> = HashMap::new();
    for (at, mark) in marks.iter().enumerate() {
        by_head.entry(head(mark)).or_default().push(at);
    }
    let mut found = vec![false; marks.len()];
    let mut seen: HashSet<Digest> = HashSet::new();
    for number in numbers {
        if found.iter().all(|is_found| *is_found) {
            break;
        }
        let plan = repository.plan(TimeId(*number), None)?;
        let mut pods = repository.pods(&plan);
        for (position, pod) in plan.pods.iter().enumerate() {
            if seen.insert(pod.digest) {
                let bytes = pods.pod(position).map_err(chipmink::Error::from)?;
                search(&bytes, &by_head, marks, &mut found);
            }
        }
    }
    Ok(found)
}

fn head(bytes: &[u8]) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head.copy_from_slice(&bytes[..HEAD]);
    head
}

fn search(bytes: &[u8], by_head: &HashMap<[u8; HEAD], Vec<usize>>, marks: &[Vec<u8>], found: &mut [bool]) {
    for (at, window) in bytes.windows(HEAD).enumerate() {
        let Some(candidates) = by_head.get(window) else { continue };
        for candidate in candidates {
            found[*candidate] |= bytes[at..].starts_with(&marks[*candidate]);
        }
    }
}
