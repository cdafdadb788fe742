//! Versions of plain bytes: a namespace whose variables are byte strings, saved as the facade saves objects, with no
//! Python in sight.

use bytes::Bytes;
use chipmink_digest::{Grid, NodeKind, digest, digest_region, read_tree};
use chipmink_format::{
    Commit, Covariable, Edit, Extensions, ManifestRow, ManifestValue, NamedRoot, PodRow, Text, Tree,
    read_manifest, slot_key,
};
use chipmink_store::{PackTransaction, Publication, Store, StoreError};
use chipmink_types::{
    BlobError, BlobKind, BlobSink, BlobSource, Digest, Export, GridKind, RegionRecord, Slot, TimeId,
    ViewRecord,
};
use std::collections::BTreeMap;

/// A namespace of byte strings.
pub type Namespace = BTreeMap<String, Vec<u8>>;

/// The ref that toy versions move.
pub const REF: &str = "main";

/// Strings of this length and more are regions.
const REGION_FROM: usize = 64 << 10;

/// Saves a namespace on top of what the ref points at, as far as this process has looked.
///
/// # Errors
/// As a publication.
pub fn save(store: &Store, namespace: &Namespace, message: &str) -> Result<TimeId, StoreError> {
    let mut transaction = store.begin();
    let publication = write(store, &mut transaction, namespace, message)?;
    transaction.publish(&publication)
}

/// Writes the blobs of a namespace; what is returned publishes them.
///
/// # Errors
/// When the transaction fails.
pub fn write(
    store: &Store,
    transaction: &mut PackTransaction,
    namespace: &Namespace,
    message: &str,
) -> Result<Publication, StoreError> {
    let mut edits: Vec<Edit> = Vec::new();
    for (order, (name, value)) in namespace.iter().enumerate() {
        let previous = if value.len() < REGION_FROM { None } else { previous(store, name) };
        let row = variable(transaction, name, order as u64 * 1024, value, previous).map_err(blob_error)?;
        edits.push((name.clone().into_bytes(), Some(row)));
    }
    let mut tree = Tree::empty();
    let manifest = tree.apply(&edits, store, transaction).map_err(|error| blob_error(error.into_blob()))?;
    let target = store.head().refs.get(REF).copied();
    let commit = Commit {
        parents: target.iter().map(|target| target.commit).collect(),
        manifest,
        saved_at: 0,
        message: Text::store(message, transaction).map_err(|error| blob_error(error.into_blob()))?,
        author: String::new(),
        code: None,
        statistics: BTreeMap::new(),
        extensions: Extensions::default(),
    };
    Ok(Publication { ref_name: REF.to_owned(), expected: target.map(|target| target.time), commit })
}

trait IntoBlob {
    fn into_blob(self) -> BlobError;
}

impl IntoBlob for chipmink_format::FormatError {
    fn into_blob(self) -> BlobError {
        match self {
            chipmink_format::FormatError::Blob(error) => error,
            other => BlobError::Storage { context: "a toy version".to_owned(), source: Box::new(other) },
        }
    }
}

fn blob_error(error: BlobError) -> StoreError {
    match error {
        BlobError::Storage { context, source } => match source.downcast::<StoreError>() {
            Ok(error) => *error,
            Err(source) => StoreError::Blob(BlobError::Storage { context, source }),
        },
        other => StoreError::Blob(other),
    }
}

/// Root and chunks of a variable's region in the version that the ref points at, if it was one there.
fn previous(store: &Store, name: &str) -> Option<(Digest, u64)> {
    let manifest = store.head().refs.get(REF)?.manifest;
    let (_, row) = read_manifest(manifest, store).ok()?.into_iter().find(|(known, _)| known == name)?;
    let region = pod(store, &row).ok()?.1.regions.into_iter().next()?;
    Some((region.root, Grid::of(&region).ok()?.chunk_count()))
}

fn variable(
    sink: &mut PackTransaction,
    name: &str,
    order: u64,
    value: &[u8],
    previous: Option<(Digest, u64)>,
) -> Result<Vec<u8>, BlobError> {
    let mut row = PodRow {
        rank: 1 << 40,
        digest: digest(b""),
        byte_len: 0,
        exports: vec![Export::Root(0)],
        dependencies: Vec::new(),
        globals: Vec::new(),
        shapes: Vec::new(),
        regions: Vec::new(),
        names: Vec::new(),
        side: None,
        extensions: Extensions::default(),
    };
    let pod: &[u8] = if value.len() < REGION_FROM {
        value
    } else {
        let root = digest_region(value, &Grid::run(value.len() as u64), previous, sink)?;
        row.regions.push(RegionRecord {
            grid: GridKind::Run,
            row_len: 0,
            first_chunk_len: 0,
            byte_len: value.len() as u64,
            buffer_id: 0,
            root,
            views: vec![ViewRecord { byte_offset: 0 }],
        });
        b"region"
    };
    row.digest = digest(pod);
    row.byte_len = pod.len() as u64;
    sink.put(BlobKind::Pod, row.digest, pod)?;
    let encoded = row.encode(sink).map_err(IntoBlob::into_blob)?;
    let mut covariable = Covariable {
        names: vec![NamedRoot { name: name.to_owned(), slot: Slot(0), export: 0 }],
        next_slot: 1,
        ..Covariable::default()
    };
    let edits = [(slot_key(Slot(0)).to_vec(), Some(encoded))];
    let mut table = Tree::empty();
    let root = table.apply(&edits, &Nothing, sink).map_err(IntoBlob::into_blob)?;
    covariable.table = Tree::open(root);
    let value = ManifestValue::Covariable(covariable.store(sink).map_err(IntoBlob::into_blob)?);
    Ok(ManifestRow { order, value }.encode())
}

/// A source without blobs, for a table that begins empty.
struct Nothing;

impl BlobSource for Nothing {
    fn get(&self, digest: &Digest) -> Result<Bytes, BlobError> {
        Err(BlobError::Missing { digest: *digest })
    }
}

/// Loads a version.
///
/// # Errors
/// When anything of it is missing or damaged.
pub fn load(store: &Store, time: TimeId) -> Result<Namespace, StoreError> {
    let commit = store.commit(time)?;
    let rows = read_manifest(commit.manifest, store).map_err(|error| blob_error(error.into_blob()))?;
    rows.into_iter().map(|(name, row)| Ok((name, value(store, &row).map_err(blob_error)?))).collect()
}

/// A variable's one pod and its row.
fn pod(store: &Store, row: &ManifestRow) -> Result<(Bytes, PodRow), BlobError> {
    let ManifestValue::Covariable(covariable) = &row.value else {
        return Err(BlobError::Missing { digest: digest(b"") });
    };
    let covariable = covariable.load(store).map_err(IntoBlob::into_blob)?;
    let slot = slot_key(covariable.names[0].slot);
    let found = covariable.table.get(&slot, store).map_err(IntoBlob::into_blob)?;
    let row = found.ok_or(BlobError::Missing { digest: digest(b"") })?;
    let row = PodRow::decode(&row, store).map_err(IntoBlob::into_blob)?;
    Ok((store.get(&row.digest)?, row))
}

fn value(store: &Store, row: &ManifestRow) -> Result<Vec<u8>, BlobError> {
    let (pod, row) = pod(store, row)?;
    let Some(region) = row.regions.first() else { return Ok(pod.to_vec()) };
    let bad = |reason: String| BlobError::Damaged { digest: region.root, reason };
    let grid = Grid::of(region).map_err(|error| bad(error.to_string()))?;
    let mut get = |digest: &Digest| store.get(digest);
    let chunks = read_tree(NodeKind::Region, region.root, grid.chunk_count(), &mut get)
        .map_err(|error| bad(error.to_string()))?;
    let lens = grid.chunks().map(|(_, len)| len);
    let blobs: Vec<(Digest, u64)> = chunks.into_iter().zip(lens).collect();
    let mut bytes = vec![0; region.byte_len as usize];
    store.read_into(&blobs, &mut bytes)?;
    Ok(bytes)
}
