//! Load plans: the closure of what is asked for, in the order in which its pods must run.
//!
//! 1. The closure follows dependencies only; rows outside it are not looked at, except where a whole table is cheaper.
//! 2. Definition groups run before whoever names them, co-variables in the order of the namespace, the pods of a table
//!    in the order of their ranks.
//! 3. Whatever the tables say, the work is bounded by the rows that exist: each row is visited once.

use super::descriptors::{Descriptors, Known};
use super::table::Tables;
use crate::error::{Error, Result};
use chipmink_format::{
    CovariableRef, Dependency, ManifestRow, ManifestValue, PodRow, find_in_manifest, read_manifest,
};
use chipmink_types::{
    BlobSource, Digest, LoadPlan, LoadPod, LoadRoot, LoadShape, LoadVariable, Slot, TimeId,
};
use hashbrown::{HashMap, HashSet};

/// Collects what a load needs.
pub(crate) struct Planner<'a> {
    time: TimeId,
    manifest: Digest,
    source: &'a dyn BlobSource,
    tables: Tables<'a>,
    variables: Vec<(String, Place)>,
    known: HashSet<String>,
    /// Rows whose dependencies are still to be followed: table, place among its rows.
    open: Vec<(usize, usize)>,
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
            reads: Vec::new(),
        }
    }

    /// Adds every variable of the version.
    pub(crate) fn add_all(&mut self) -> Result<()> {
        for (name, row) in read_manifest(self.manifest, self.source)? {
            self.add(name, row, true)?;
        }
        self.close()
    }

    /// Adds variables by name, and with `with_reads` those that their functions read and the version has.
    pub(crate) fn add_named(&mut self, names: &[String], with_reads: bool) -> Result<()> {
        for name in names {
            if !self.known.contains(name) {
                let row = find_in_manifest(self.manifest, name, self.source)?;
                let row = row.ok_or_else(|| Error::UnknownName { time: self.time, name: name.clone() })?;
                self.add(name.clone(), row, false)?;
            }
        }
        self.close()?;
        while with_reads && let Some(name) = self.reads.pop() {
            if self.known.contains(&name) {
                continue;
            }
            match find_in_manifest(self.manifest, &name, self.source)? {
                Some(row) => {
                    self.add(name, row, false)?;
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

    /// Whether no other variable of the version has anything in common with one that was added.
    pub(crate) fn is_alone(&self, name: &str) -> bool {
        self.variables.iter().any(|(variable, place)| match place {
            Place::Row { table, .. } => variable == name && self.tables.all()[*table].header.names.len() == 1,
            Place::Ready(_) => variable == name,
        })
    }

    /// The variables so far: first those that were named, then those that are read.
    pub(crate) fn names(self) -> Vec<String> {
        self.variables.into_iter().map(|(name, _)| name).collect()
    }

    fn add(&mut self, name: String, row: ManifestRow, is_whole: bool) -> Result<()> {
        let place = match row.value {
            ManifestValue::Inline(atom) => Place::Ready(LoadRoot::Inline(atom)),
            ManifestValue::Named(global) => Place::Ready(LoadRoot::Named(global)),
            ManifestValue::Skipped(skipped) => Place::Ready(LoadRoot::Skipped(skipped)),
            ManifestValue::Covariable(reference) => {
                let (table, slot, export) = self.root(&name, &reference)?;
                if is_whole {
                    self.tables.read_whole(table)?;
                }
                self.visit(table, slot)?;
                Place::Row { table, slot, export }
            }
        };
        self.known.insert(name.clone());
        self.variables.push((name, place));
        Ok(())
    }

    fn root(&mut self, name: &str, reference: &CovariableRef) -> Result<(usize, Slot, u32)> {
        let table = self.tables.covariable(reference)?;
        match self.tables.all()[table].header.find(name) {
            Some(root) => Ok((table, root.slot, root.export)),
            None => Err(self.tables.damaged(format!("the co-variable of {name:?} does not name it"))),
        }
    }

    fn visit(&mut self, table: usize, slot: Slot) -> Result<()> {
        let (at, is_new) = self.tables.row(table, slot)?;
        if is_new {
            self.open.push((table, at));
        }
        Ok(())
    }

    /// Follows dependencies until there are no new ones.
    fn close(&mut self) -> Result<()> {
        while let Some((table, at)) = self.open.pop() {
            let row = &self.tables.all()[table].rows[at].1;
            self.reads.extend(row.names.iter().filter(|name| !self.known.contains(*name)).cloned());
            for ordinal in 0..row.dependencies.len() {
                match self.tables.all()[table].rows[at].1.dependencies[ordinal] {
                    Dependency::Local(slot) => self.visit(table, slot)?,
                    Dependency::Definition { group, slot } => {
                        let group = self.tables.group(table, group)?;
                        self.visit(group, slot)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The plan.
    pub(crate) fn finish(mut self, descriptors: &Descriptors) -> Result<LoadPlan> {
        let order = self.table_order();
        // By table and place among its rows: the position in the plan.
        let mut positions: Vec<Vec<usize>> = vec![Vec::new(); self.tables.all().len()];
        let mut rows: Vec<(usize, usize)> = Vec::new();
        let mut definitions = 0;
        for table in order {
            let reader = &self.tables.all()[table];
            if reader.is_group() {
                definitions += reader.rows.len();
            }
            let key = |at: &usize| (reader.rows[*at].1.rank, reader.rows[*at].0);
            let mut places: Vec<usize> = (0..reader.rows.len()).collect();
            if !places.is_sorted_by_key(key) {
                places.sort_unstable_by_key(key);
            }
            positions[table] = vec![0; places.len()];
            for at in places {
                positions[table][at] = rows.len();
                rows.push((table, at));
            }
        }
        let (known, sides) = self.load_descriptors(descriptors)?;

        let mut pods = Vec::with_capacity(rows.len());
        for (table, at) in rows {
            let mut dependencies = Vec::with_capacity(self.tables.all()[table].rows[at].1.dependencies.len());
            for ordinal in 0..dependencies.capacity() {
                let (of, slot) = match self.tables.all()[table].rows[at].1.dependencies[ordinal] {
                    Dependency::Local(slot) => (table, slot),
                    Dependency::Definition { group, slot } => (self.tables.group(table, group)?, slot),
                };
                let (place, _) = self.tables.row(of, slot)?;
                let position = positions[of].get(place).copied();
                dependencies.push(position.ok_or_else(|| self.tables.damaged("a pod is lost".to_owned()))?);
            }
            let lost = |digest: &Digest| self.tables.damaged(format!("descriptor {digest} is lost"));
            let row = &self.tables.all()[table].rows[at].1;
            let mut shapes = Vec::with_capacity(row.shapes.len());
            for shape in &row.shapes {
                let names = known.names.get(&shape.names).cloned();
                let (dict_names, slot_names) = names.ok_or_else(|| lost(&shape.names))?;
                shapes.push(LoadShape { class: shape.class, dict_names, slot_names });
            }
            let global = |digest: &Digest| known.globals.get(digest).cloned().ok_or_else(|| lost(digest));
            let globals = row.globals.iter().map(global).collect::<Result<_>>()?;
            let row: &mut PodRow = &mut self.tables.all_mut()[table].rows[at].1;
            pods.push(LoadPod {
                digest: row.digest,
                byte_len: row.byte_len,
                exports: std::mem::take(&mut row.exports),
                dependencies,
                globals,
                shapes,
                regions: std::mem::take(&mut row.regions),
                side: row.side.and_then(|digest| sides.get(&digest).cloned()),
            });
        }
        let mut variables = Vec::with_capacity(self.variables.len());
        for (name, place) in std::mem::take(&mut self.variables) {
            let root = match place {
                Place::Ready(root) => root,
                Place::Row { table, slot, export } => {
                    let (at, _) = self.tables.row(table, slot)?;
                    LoadRoot::Pod(positions[table][at], export)
                }
            };
            variables.push(LoadVariable { name, root });
        }
        Ok(LoadPlan { pods, definitions, variables })
    }

    /// Descriptors and side records of all rows.
    fn load_descriptors(&self, descriptors: &Descriptors) -> Result<(Known, HashMap<Digest, bytes::Bytes>)> {
        let (mut globals, mut names, mut sides) = (HashSet::new(), HashSet::new(), HashSet::new());
        for (_, row) in self.tables.all().iter().flat_map(|table| &table.rows) {
            globals.extend(row.globals.iter().copied());
            names.extend(row.shapes.iter().map(|shape| shape.names));
            sides.extend(row.side);
        }
        let known = descriptors.load(&globals, &names, self.source)?;
        let sides: Vec<Digest> = sides.into_iter().collect();
        let bytes = if sides.is_empty() { Vec::new() } else { self.source.get_many(&sides)? };
        Ok((known, sides.into_iter().zip(bytes).collect()))
    }

    /// The tables with visited rows: groups before those that name them, co-variables as they were first named.
    fn table_order(&self) -> Vec<usize> {
        let tables = self.tables.all();
        let covariables = self.variables.iter().filter_map(|(_, place)| match place {
            Place::Row { table, .. } => Some((*table, false)),
            Place::Ready(_) => None,
        });
        let mut open: Vec<(usize, bool)> = covariables.collect();
        open.reverse();
        let (mut groups, mut others) = (Vec::new(), Vec::new());
        let mut is_placed = vec![false; tables.len()];
        // A table is placed once all it names are; the flag says whether they have been looked at.
        while let Some((table, is_ready)) = open.pop() {
            if is_placed[table] {
                continue;
            }
            if is_ready {
                is_placed[table] = true;
                let list = if tables[table].is_group() { &mut groups } else { &mut others };
                list.push(table);
                continue;
            }
            open.push((table, true));
            // Groups of which nothing is needed were never opened. They are named by digest, so never in a circle.
            let named = tables[table].header.groups.iter().filter_map(|digest| self.tables.opened(digest));
            open.extend(named.filter(|group| !is_placed[*group]).map(|group| (group, false)));
        }
        groups.append(&mut others);
        groups
    }
}

/// The names of a version, in the order of the namespace.
pub(crate) fn names_of(manifest: Digest, source: &dyn BlobSource) -> Result<Vec<String>> {
    Ok(read_manifest(manifest, source)?.into_iter().map(|(name, _)| name).collect())
}
