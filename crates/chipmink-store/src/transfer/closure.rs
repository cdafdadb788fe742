//! [`Closure`]: the blobs that versions need and the destination lacks.
//!
//! 1. A version is walked beside one that the destination keeps (a ref of it points there) or that goes before it in this
//!    transfer: what is equal at the same place is not looked at. All else is walked to its leaves, and looked up in the
//!    destination blob by blob.
//! 2. A version of which a part is no longer in the source's index was swept: nothing of it is sent.

use super::history::{Selection, Version};
use super::options::TransferOptions;
use super::partial::{Partial, Rows};
use crate::compression::PlaceKind;
use crate::error::{Result, StoreError};
use crate::generations::DigestSet;
use crate::index::Found;
use crate::inner::Inner;
use bytes::Bytes;
use chipmink_digest::{Grid, NodeKind, TreeError, visit_tree, visit_tree_beside};
use chipmink_format::{
    CovariableRef, FormatError, GROUP_DEPTH_MAX, ManifestRow, ManifestValue, PodRow, RefTarget, Text, Tree,
    root_path,
};
use chipmink_types::{BlobError, BlobKind, BlobSource, Digest, RegionRecord};
use hashbrown::{HashMap, HashSet};
use std::cell::RefCell;
use std::ops::ControlFlow;

/// Blobs that are looked up at once.
const WINDOW: usize = 4096;

/// Where a blob that the destination lacks comes from.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// A pack of the source.
    Stored(Found),
    /// It was made for this transfer.
    Made(Bytes),
}

/// A blob that the destination lacks.
#[derive(Clone, Debug)]
pub(super) struct Missing {
    pub(super) digest: Digest,
    pub(super) kind: BlobKind,
    pub(super) origin: Origin,
}

/// What was met, and what of it in the version at hand.
#[derive(Debug, Default)]
struct Met {
    seen: DigestSet,
    fresh: Vec<(Digest, BlobKind)>,
}

impl Met {
    fn note(&mut self, digest: Digest, kind: BlobKind) {
        if self.seen.insert(digest) {
            self.fresh.push((digest, kind));
        }
    }
}

/// Reads blobs of the source and notes that they are needed.
struct Noting<'a> {
    source: &'a Inner,
    met: &'a RefCell<Met>,
    kind: BlobKind,
}

impl BlobSource for Noting<'_> {
    fn get(&self, digest: &Digest) -> Result<Bytes, BlobError> {
        self.met.borrow_mut().note(*digest, self.kind);
        self.source.get(digest)
    }

    fn get_many(&self, digests: &[Digest]) -> Result<Vec<Bytes>, BlobError> {
        {
            let mut met = self.met.borrow_mut();
            digests.iter().for_each(|digest| met.note(*digest, self.kind));
        }
        self.source.get_many(digests)
    }
}

/// A version as it is sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    /// Its commit, and that one's digest and manifest.
    pub(super) bytes: Bytes,
    pub(super) digest: Digest,
    pub(super) manifest: Digest,
}

/// Collects what is missing.
pub(super) struct Closure<'a> {
    source: &'a Inner,
    target: &'a Inner,
    met: RefCell<Met>,
    /// Co-variables, groups and regions that were walked, and those of the version at hand.
    walked: DigestSet,
    walked_now: Vec<Digest>,
    missing: Vec<Missing>,
    /// The versions, by the source's commits.
    sent: HashMap<Digest, Sent>,
}

/// A row of a manifest, and the one beside it.
pub(super) type Pair = (Bytes, Option<Bytes>);

/// Reads the first table of what the newest refs of a source far away point at, unless the destination has it: what lies around it is
/// kept. What cannot be had is told when it is needed.
pub(super) fn fetch_ahead(source: &Inner, target: &Inner) {
    if source.backend.kind() != PlaceKind::Remote {
        return;
    }
    let newest = source.log().state.refs.values().max_by_key(|target| target.time).copied();
    let has_it = |tip: &RefTarget| target.log().state.refs.values().any(|other| other.commit == tip.commit);
    if let Some(tip) = newest.filter(|tip| !has_it(tip)) {
        let _ = source.get(&tip.manifest);
    }
}

fn is_missing(error: &FormatError) -> bool {
    matches!(error, FormatError::Blob(BlobError::Missing { .. }))
}

fn tree_error(error: TreeError<BlobError>) -> FormatError {
    match error {
        TreeError::Caller(error) => FormatError::Blob(error),
        other => FormatError::Damaged {
            what: "digest tree of a region".into(),
            byte_offset: 0,
            reason: other.to_string().into(),
        },
    }
}

impl<'a> Closure<'a> {
    pub(super) fn new(source: &'a Inner, target: &'a Inner) -> Self {
        Closure {
            source,
            target,
            met: RefCell::default(),
            walked: DigestSet::default(),
            walked_now: Vec::new(),
            missing: Vec::new(),
            sent: HashMap::new(),
        }
    }

    /// The version as it is sent; `None`: it is not.
    pub(super) fn sent(&self, commit: &Digest) -> Option<&Sent> {
        self.sent.get(commit)
    }

    pub(super) fn into_missing(self) -> Vec<Missing> {
        self.missing
    }

    /// Walks all versions, oldest first. Returns how many of them were swept.
    pub(super) fn take_all(
        &mut self,
        selection: &Selection,
        options: &TransferOptions,
        tell: &mut dyn FnMut() -> Result<()>,
    ) -> Result<u64> {
        let heads: HashSet<Digest> =
            self.target.log().state.refs.values().map(|target| target.commit).collect();
        let tips: HashSet<Digest> = selection.carried.iter().map(|carried| carried.tip).collect();
        let mut partial = options.names.as_ref().map(|names| Partial::new(self.source, names));
        let mut swept = 0;
        let again = selection.again.iter().map(|version| (version, false));
        for (version, is_new) in again.chain(selection.versions.iter().map(|version| (version, true))) {
            tell()?;
            match self.take(version, selection, &heads, partial.as_mut()) {
                Ok(sent) if is_new => drop(self.sent.insert(version.digest, sent)),
                Ok(_) => {}
                Err(error) if is_missing(&error) && !tips.contains(&version.digest) => {
                    self.forget();
                    swept += 1;
                }
                Err(source) => {
                    let place = self.source.backend.label().to_owned();
                    let object = format!("version {} ({})", version.number, root_path(version.number));
                    return Err(StoreError::Format { place, object, source });
                }
            }
        }
        if let Some(partial) = partial {
            partial.check(&selection.versions, self.source.backend.label())?;
        }
        Ok(swept)
    }

    /// Undoes what the version at hand has noted.
    fn forget(&mut self) {
        let met = self.met.get_mut();
        for (digest, _) in met.fresh.drain(..) {
            met.seen.remove(&digest);
        }
        for digest in self.walked_now.drain(..) {
            self.walked.remove(&digest);
        }
    }

    fn take(
        &mut self,
        version: &Version,
        selection: &Selection,
        heads: &HashSet<Digest>,
        partial: Option<&mut Partial<'_>>,
    ) -> Result<Sent, FormatError> {
        self.walked_now.clear();
        for text in [Some(&version.commit.message), version.commit.code.as_ref()].into_iter().flatten() {
            if let Text::Stored { digest, .. } = text {
                self.met.get_mut().note(*digest, BlobKind::Text);
            }
        }
        let parent = version.commit.parents.first();
        let known = parent.and_then(|parent| selection.known.get(parent));
        let known = known.filter(|target| heads.contains(&target.commit));
        let before = parent.filter(|parent| self.sent.contains_key(*parent) || known.is_some());
        let (sent, made) = match partial {
            None => {
                self.manifest(version, before.copied(), selection)?;
                let (bytes, manifest) = (version.bytes.clone(), version.commit.manifest);
                (Sent { bytes, digest: version.digest, manifest }, Vec::new())
            }
            Some(partial) => {
                let rows = partial.rows(version)?;
                let beside = match before {
                    Some(before) => partial.before(before, known, self.target)?,
                    None => Rows::default(),
                };
                for (key, row) in &rows {
                    if beside.get(key) != Some(row) {
                        self.variable(&(row.clone(), beside.get(key).cloned()))?;
                    }
                }
                let parents = version.commit.parents.iter().map(|parent| {
                    let sent = self.sent.get(parent).map(|sent| sent.digest);
                    let known = selection.known.get(parent).map(|target| target.commit);
                    sent.or(known).unwrap_or(*parent)
                });
                partial.commit(version, rows, parents.collect())?
            }
        };
        self.settle(made)?;
        Ok(sent)
    }

    /// Looks up what the version at hand has noted.
    fn settle(&mut self, made: Vec<(BlobKind, Digest, Bytes)>) -> Result<(), FormatError> {
        let fresh = std::mem::take(&mut self.met.get_mut().fresh);
        let mut missing = Vec::new();
        let mut failure = None;
        for window in fresh.chunks(WINDOW) {
            let digests: Vec<Digest> = window.iter().map(|(digest, _)| *digest).collect();
            // An index of the destination that cannot be read costs a duplicate, no error.
            let (there, _) = self.target.index().find_many(&digests);
            let wanted: Vec<(Digest, BlobKind)> = window
                .iter()
                .zip(&there)
                .filter(|(_, found)| found.is_none())
                .map(|(blob, _)| *blob)
                .collect();
            let digests: Vec<Digest> = wanted.iter().map(|(digest, _)| *digest).collect();
            match self.source.resolve(&digests) {
                Ok(found) => {
                    let blobs = wanted.into_iter().zip(found).map(|((digest, kind), found)| Missing {
                        digest,
                        kind,
                        origin: Origin::Stored(found),
                    });
                    missing.extend(blobs);
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        if let Some(error) = failure {
            self.met.get_mut().fresh = fresh;
            return Err(error.into());
        }
        for (kind, digest, bytes) in made {
            if self.met.get_mut().seen.insert(digest)
                && self.target.index().find(&digest).ok().flatten().is_none()
            {
                missing.push(Missing { digest, kind, origin: Origin::Made(bytes) });
            }
        }
        self.missing.append(&mut missing);
        Ok(())
    }

    /// The rows of the manifest that differ from those before.
    fn manifest(
        &mut self,
        version: &Version,
        before: Option<Digest>,
        selection: &Selection,
    ) -> Result<(), FormatError> {
        let source = self.source;
        let before = before.and_then(|before| {
            let sent = self.sent.get(&before).map(|sent| sent.manifest);
            sent.or_else(|| selection.known.get(&before).map(|target| target.manifest))
        });
        if before == Some(version.commit.manifest) {
            return Ok(());
        }
        let after = Tree::open(version.commit.manifest);
        let pairs = self.changes(before.map(Tree::open).as_ref(), &after, source)?;
        pairs.iter().try_for_each(|pair| self.variable(pair))
    }

    /// The rows of a table that differ from those of another. Its nodes are noted.
    fn changes(&self, before: Option<&Tree>, after: &Tree, source: &Inner) -> Result<Vec<Pair>, FormatError> {
        let noting = Noting { source, met: &self.met, kind: BlobKind::Table };
        if let Some(before) = before {
            match Tree::diff(before, after, &noting) {
                Ok(changes) => {
                    let pairs = changes.into_iter().filter_map(|change| Some((change.after?, change.before)));
                    return Ok(pairs.collect());
                }
                // Perhaps the other one is not there any more. If it is this one, it shows below.
                Err(FormatError::Blob(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let mut pairs = Vec::new();
        after.scan(&[], &noting, &mut |_, value| {
            pairs.push((value.clone(), None));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(pairs)
    }

    fn variable(&mut self, (after, before): &Pair) -> Result<(), FormatError> {
        let covariable = |row: &Bytes| match ManifestRow::decode(row)?.value {
            ManifestValue::Covariable(covariable) => Ok(Some(covariable)),
            _ => Ok::<_, FormatError>(None),
        };
        let Some(after) = covariable(after)? else { return Ok(()) };
        let before = before.as_ref().map(covariable).transpose()?.flatten();
        self.covariable(&after, before.as_ref(), 0)
    }

    fn walk_once(&mut self, digest: Digest) -> bool {
        let is_new = self.walked.insert(digest);
        if is_new {
            self.walked_now.push(digest);
        }
        is_new
    }

    fn covariable(
        &mut self,
        after: &CovariableRef,
        before: Option<&CovariableRef>,
        depth: usize,
    ) -> Result<(), FormatError> {
        let before = before.filter(|before| before.digest() != after.digest());
        if !self.walk_once(after.digest()) {
            return Ok(());
        }
        let source = self.source;
        if let CovariableRef::Stored(digest) = after {
            self.met.get_mut().note(*digest, BlobKind::Table);
        }
        let after = after.load(source)?;
        let before = before.and_then(|before| before.load(source).ok());
        if depth == GROUP_DEPTH_MAX && !after.groups.is_empty() {
            let reason = "definition groups name each other too deeply".into();
            return Err(FormatError::Damaged { what: "co-variable".into(), byte_offset: 0, reason });
        }
        for (at, group) in after.groups.iter().enumerate() {
            let others = before.as_ref().map_or(&[][..], |before| &before.groups);
            if others.contains(group) {
                continue;
            }
            let other = others.get(at).map(|other| CovariableRef::Stored(*other));
            self.covariable(&CovariableRef::Stored(*group), other.as_ref(), depth + 1)?;
        }
        let rows = self.changes(before.as_ref().map(|before| &before.table), &after.table, source)?;
        rows.iter().try_for_each(|row| self.row(row))
    }

    fn row(&mut self, (after, before): &Pair) -> Result<(), FormatError> {
        let source = self.source;
        let after = {
            let noting = Noting { source, met: &self.met, kind: BlobKind::Table };
            PodRow::decode(after, &noting)?
        };
        let before = before.as_ref().and_then(|before| PodRow::decode(before, source).ok());
        {
            let met = self.met.get_mut();
            met.note(after.digest, BlobKind::Pod);
            after.globals.iter().for_each(|digest| met.note(*digest, BlobKind::Descriptor));
            after.shapes.iter().for_each(|shape| met.note(shape.names, BlobKind::Descriptor));
            after.side.iter().for_each(|digest| met.note(*digest, BlobKind::Descriptor));
        }
        for (at, region) in after.regions.iter().enumerate() {
            let before = before.as_ref().and_then(|before| before.regions.get(at));
            self.region(region, before)?;
        }
        Ok(())
    }

    fn region(&mut self, after: &RegionRecord, before: Option<&RegionRecord>) -> Result<(), FormatError> {
        let is_same = before.is_some_and(|before| before.root == after.root);
        if is_same || !self.walk_once(after.root) {
            return Ok(());
        }
        let grid =
            |region: &RegionRecord| Grid::of(region).map_err(|error| tree_error(TreeError::Digest(error)));
        let count = grid(after)?.chunk_count();
        let before = before.filter(|before| grid(before).is_ok_and(|grid| grid.chunk_count() == count));
        let noting = Noting { source: self.source, met: &self.met, kind: BlobKind::DigestNode };
        let mut get = |digest: &Digest| noting.get(digest);
        let mut visit = |chunk: Digest| {
            self.met.borrow_mut().note(chunk, BlobKind::Chunk);
            Ok::<(), BlobError>(())
        };
        let visited = match before {
            Some(before) => {
                visit_tree_beside(NodeKind::Region, after.root, before.root, count, &mut get, &mut visit)
            }
            None => visit_tree(NodeKind::Region, after.root, count, &mut get, &mut visit),
        };
        visited.map_err(tree_error)
    }
}
