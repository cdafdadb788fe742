//! Load plans: the closure of what is asked for, in the order in which its pods must run.
//!
//! 1. The closure follows dependencies only; rows outside it are not looked at, except where a whole table is cheaper.
//! 2. Definition groups run before whoever names them, co-variables in the order of the namespace, the pods of a table
//!    in the order of their ranks.
//! 3. Whatever the tables say, the work is bounded by the rows that exist: each row is visited once.

use super::descriptors::Descriptors;
use super::table::Tables;
use crate::error::{Error, Result};
use chipmink_format::{
    CovariableRef, Dependency, ManifestRow, ManifestValue, PodRow, find_in_manifest, read_manifest,
};
use chipmink_types::{
    BlobSource, Digest, LoadPlan, LoadPod, LoadRoot, LoadShape, LoadVariable, Slot, TimeId,
};
use hashbrown::{HashMap, HashSet};
use std::sync::Arc;

/// Collects what a load needs.
pub(crate) struct Planner<'a> {
    time: TimeId,
    manifest: Digest,
    source: &'a dyn BlobSource,
    tables: Tables<'a>,
    variables: Vec<(String, Place)>,
    known: HashSet<String>,
    /// Pods whose dependencies are still to be followed.
    open: Vec<(usize, Slot)>,
    visited: HashSet<(usize, Slot)>,
    /// Names that functions in the closure read.
    reads: Vec<String>,
}

/// Where a variable of a plan is.
enum Place {
    Ready(LoadRoot),
    Row { table: usize, slot: Slot, export: u32 },
}

impl<'a> Planner<'a> {
    pub(crate) fn new(time: TimeId, manifest: Digest, source: &'a dyn BlobSource) -> Self {
        Planner {
            time,
            manifest,
            source,
            tables: Tables::new(time, source),
            variables: Vec::new(),
            known: HashSet::new(),
            open: Vec::new(),
            visited: HashSet::new(),
            reads: Vec::new(),
        }
    }

    /// Adds every variable of the version.
    pub(crate) fn add_all(&mut self) -> Result<()> {
        for (name, row) in read_manifest(self.manifest, self.source)? {
            let table = self.add(name, row)?;
            if let Some(table) = table {
                self.tables.read_whole(table)?;
            }
        }
        self.close()
    }

    /// Adds variables by name, and with `with_reads` those that their functions read and the version has.
    pub(crate) fn add_named(&mut self, names: &[String], with_reads: bool) -> Result<()> {
        for name in names {
            if !self.known.contains(name) {
                let row = find_in_manifest(self.manifest, name, self.source)?;
                let row = row.ok_or_else(|| Error::UnknownName { time: self.time, name: name.clone() })?;
                self.add(name.clone(), row)?;
            }
        }
        self.close()?;
        while with_reads && let Some(name) = self.reads.pop() {
            if self.known.contains(&name) {
                continue;
            }
            match find_in_manifest(self.manifest, &name, self.source)? {
                Some(row) => {
                    self.add(name, row)?;
                    self.close()?;
                }
                // A builtin, or a name that was not defined yet.
                None => {
                    self.known.insert(name);
                }
            }
        }
        Ok(())
    }

    /// The variables so far: first those that were named, then those that are read.
    pub(crate) fn names(self) -> Vec<String> {
        self.variables.into_iter().map(|(name, _)| name).collect()
    }

    fn add(&mut self, name: String, row: ManifestRow) -> Result<Option<usize>> {
        let mut of_table = None;
        let place = match row.value {
            ManifestValue::Inline(atom) => Place::Ready(LoadRoot::Inline(atom)),
            ManifestValue::Named(global) => Place::Ready(LoadRoot::Named(global)),
            ManifestValue::Skipped(skipped) => Place::Ready(LoadRoot::Skipped(skipped)),
            ManifestValue::Covariable(reference) => {
                let (table, slot, export) = self.root(&name, &reference)?;
                self.open.push((table, slot));
                of_table = Some(table);
                Place::Row { table, slot, export }
            }
        };
        self.known.insert(name.clone());
        self.variables.push((name, place));
        Ok(of_table)
    }

    fn root(&mut self, name: &str, reference: &CovariableRef) -> Result<(usize, Slot, u32)> {
        let table = self.tables.covariable(reference)?;
        match self.tables.all()[table].header.find(name) {
            Some(root) => Ok((table, root.slot, root.export)),
            None => Err(self.tables.damaged(format!("the co-variable of {name:?} does not name it"))),
        }
    }

    /// Follows dependencies until there are no new ones.
    fn close(&mut self) -> Result<()> {
        while let Some((table, slot)) = self.open.pop() {
            if !self.visited.insert((table, slot)) {
                continue;
            }
            let row = self.tables.row(table, slot)?;
            for dependency in &row.dependencies {
                let next = match *dependency {
                    Dependency::Local(slot) => (table, slot),
                    Dependency::Definition { group, slot } => (self.tables.group(table, group)?, slot),
                };
                if !self.visited.contains(&next) {
                    self.open.push(next);
                }
            }
            self.reads.extend(row.names.iter().filter(|name| !self.known.contains(*name)).cloned());
        }
        Ok(())
    }

    /// The plan.
    pub(crate) fn finish(mut self, descriptors: &Descriptors) -> Result<LoadPlan> {
        let order = self.table_order()?;
        // Per table its rows by rank, and the position of each slot.
        let mut rows: Vec<(usize, Slot, Arc<PodRow>)> = Vec::with_capacity(self.visited.len());
        for table in order {
            let start = rows.len();
            rows.extend(
                self.tables.all()[table].read_rows().map(|(slot, row)| (table, slot, Arc::clone(row))),
            );
            rows[start..].sort_unstable_by_key(|(_, slot, row)| (row.rank, *slot));
        }
        let positions: HashMap<(usize, Slot), usize> =
            rows.iter().enumerate().map(|(at, (table, slot, _))| ((*table, *slot), at)).collect();
        let all = || rows.iter().map(|(.., row)| row);
        let globals = all().flat_map(|row| row.globals.iter().copied()).collect();
        let names = all().flat_map(|row| row.shapes.iter().map(|shape| shape.names)).collect();
        let known = descriptors.load(&globals, &names, self.source)?;
        let sides: HashSet<Digest> = all().filter_map(|row| row.side).collect();
        let sides: Vec<Digest> = sides.into_iter().collect();
        let side_bytes = if sides.is_empty() { Vec::new() } else { self.source.get_many(&sides)? };
        let side_bytes: HashMap<_, _> = sides.into_iter().zip(side_bytes).collect();

        let mut pods = Vec::with_capacity(rows.len());
        for (table, _, row) in &rows {
            let mut dependencies = Vec::with_capacity(row.dependencies.len());
            for dependency in &row.dependencies {
                let place = match *dependency {
                    Dependency::Local(slot) => (*table, slot),
                    Dependency::Definition { group, slot } => (self.tables.group(*table, group)?, slot),
                };
                let position = positions.get(&place).copied();
                dependencies.push(position.ok_or_else(|| self.tables.damaged("a pod is lost".to_owned()))?);
            }
            let lost = |digest: &Digest| self.tables.damaged(format!("descriptor {digest} is lost"));
            let mut shapes = Vec::with_capacity(row.shapes.len());
            for shape in &row.shapes {
                let (dict_names, slot_names) =
                    known.names.get(&shape.names).cloned().ok_or_else(|| lost(&shape.names))?;
                shapes.push(LoadShape { class: shape.class, dict_names, slot_names });
            }
            let global = |digest: &Digest| known.globals.get(digest).cloned().ok_or_else(|| lost(digest));
            pods.push(LoadPod {
                digest: row.digest,
                byte_len: row.byte_len,
                exports: row.exports.clone(),
                dependencies,
                globals: row.globals.iter().map(global).collect::<Result<_>>()?,
                shapes,
                regions: row.regions.clone(),
                side: row.side.and_then(|digest| side_bytes.get(&digest).cloned()),
            });
        }
        let mut variables = Vec::with_capacity(self.variables.len());
        for (name, place) in self.variables {
            let root = match place {
                Place::Ready(root) => root,
                Place::Row { table, slot, export } => match positions.get(&(table, slot)) {
                    Some(position) => LoadRoot::Pod(*position, export),
                    None => return Err(self.tables.damaged(format!("the pod of {name:?} is lost"))),
                },
            };
            variables.push(LoadVariable { name, root });
        }
        Ok(LoadPlan { pods, variables })
    }

    /// The tables with visited rows: groups before those that name them, co-variables as they were first named.
    fn table_order(&mut self) -> Result<Vec<usize>> {
        let mut order = Vec::new();
        let mut is_placed = HashSet::new();
        let covariables: Vec<usize> = self
            .variables
            .iter()
            .filter_map(|(_, place)| match place {
                Place::Row { table, .. } => Some(*table),
                Place::Ready(_) => None,
            })
            .collect();
        // A table is placed once all it names are; the flag says whether they have been looked at.
        let mut open: Vec<(usize, bool)> = covariables.iter().rev().map(|table| (*table, false)).collect();
        let mut groups_first = Vec::new();
        while let Some((table, is_ready)) = open.pop() {
            if is_placed.contains(&table) {
                continue;
            }
            if is_ready {
                is_placed.insert(table);
                match self.tables.all()[table].is_group() {
                    true => groups_first.push(table),
                    false => order.push(table),
                }
                continue;
            }
            open.push((table, true));
            for digest in self.tables.all()[table].header.groups.clone() {
                // Groups of which nothing is needed were never opened.
                if let Some(group) = self.tables.opened(&digest)
                    && !is_placed.contains(&group)
                {
                    open.push((group, false));
                }
            }
        }
        groups_first.extend(order);
        Ok(groups_first)
    }
}

/// The names of a version, in the order of the namespace.
pub(crate) fn names_of(manifest: Digest, source: &dyn BlobSource) -> Result<Vec<String>> {
    Ok(read_manifest(manifest, source)?.into_iter().map(|(name, _)| name).collect())
}
