//! What a version holds, as its tables say. No pod is read.

use crate::error::{Error, Result};
use bytes::Bytes;
use chipmink_digest::{NODE_HEADER_LEN, NodeKind, TreeError, visit_tree};
use chipmink_format::{CovariableRef, ManifestValue, PodRow, read_manifest};
use chipmink_types::{BlobError, BlobSource, Digest, GlobalName, SkippedVariable};
use hashbrown::HashMap;
use std::io;
use std::ops::ControlFlow;

/// What a variable refers to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Description {
    /// An atom: one value of the pod stream.
    Inline(Bytes),
    /// An object saved by name; an empty qualname is the module itself.
    Named(GlobalName),
    /// Objects of a co-variable.
    Objects {
        /// Digest of the co-variable: two versions with the same one hold the same objects.
        covariable: Digest,
        /// Its variables, in the order of their bytes.
        names: Vec<String>,
        /// Pods of the whole co-variable.
        pods: u64,
        /// Bytes of these pods, decoded.
        pod_bytes: u64,
        /// Bytes of its regions, decoded.
        region_bytes: u64,
    },
    /// Not in the version.
    Skipped(SkippedVariable),
}

/// The variables of a version, in the order of the namespace.
pub(crate) fn describe(manifest: Digest, source: &dyn BlobSource) -> Result<Vec<(String, Description)>> {
    let mut known: HashMap<Digest, Description> = HashMap::new();
    let mut variables = Vec::new();
    for (name, row) in read_manifest(manifest, source)? {
        let description = match row.value {
            ManifestValue::Inline(atom) => Description::Inline(atom),
            ManifestValue::Named(name) => Description::Named(name),
            ManifestValue::Skipped(skipped) => Description::Skipped(skipped),
            ManifestValue::Covariable(reference) => match known.get(&reference.digest()) {
                Some(description) => description.clone(),
                None => {
                    let description = describe_covariable(&reference, source)?;
                    known.insert(reference.digest(), description.clone());
                    description
                }
            },
        };
        variables.push((name, description));
    }
    Ok(variables)
}

fn describe_covariable(reference: &CovariableRef, source: &dyn BlobSource) -> Result<Description> {
    let header = reference.load(source)?;
    let (mut pods, mut pod_bytes, mut region_bytes) = (0, 0u64, 0u64);
    header.table.scan(&[], source, &mut |_, value| {
        let row = PodRow::decode(value, source)?;
        pods += 1;
        pod_bytes = pod_bytes.saturating_add(row.byte_len);
        let regions = row.regions.iter().map(|region| region.byte_len);
        region_bytes = regions.fold(region_bytes, u64::saturating_add);
        Ok(ControlFlow::Continue(()))
    })?;
    let names = header.names.into_iter().map(|root| root.name).collect();
    Ok(Description::Objects { covariable: reference.digest(), names, pods, pod_bytes, region_bytes })
}

/// Gives the bytes of a region, by the root of its digest tree, piece by piece.
pub(crate) fn read_buffer(
    root: Digest,
    source: &dyn BlobSource,
    take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<()> {
    let header = source.get(&root)?;
    // How many chunks there are stands at the end of a node's header.
    let Some(count) = header.get(NODE_HEADER_LEN - 8..NODE_HEADER_LEN).and_then(|count| count.first_chunk())
    else {
        let reason = "it is too short to be the root of a region's digest tree".to_owned();
        return Err(BlobError::Damaged { digest: root, reason }.into());
    };
    let mut visit = |chunk: Digest| -> Result<()> { take(&source.get(&chunk)?).map_err(Error::Output) };
    let mut get = |node: &Digest| -> Result<Bytes> { Ok(source.get(node)?) };
    let visited = visit_tree(NodeKind::Region, root, u64::from_le_bytes(*count), &mut get, &mut visit);
    visited.map_err(|error| match error {
        TreeError::Digest(error) => error.into(),
        TreeError::Caller(error) => error,
        other => BlobError::Damaged { digest: root, reason: other.to_string() }.into(),
    })
}
