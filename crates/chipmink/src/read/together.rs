//! Which variables have to be loaded at once, so that no object is made twice.

use super::table::Tables;
use crate::error::{Error, Result};
use chipmink_format::{ManifestValue, find_in_manifest, read_manifest};
use chipmink_types::{BlobSource, Digest, TimeId};
use hashbrown::HashSet;

/// The variable, those of its co-variable, and those whose co-variables name a definition group that it names.
///
/// Only a co-variable that names a group makes the other co-variables' headers be read.
pub(crate) fn together(
    time: TimeId,
    manifest: Digest,
    name: &str,
    source: &dyn BlobSource,
) -> Result<Vec<String>> {
    let row = find_in_manifest(manifest, name, source)?;
    let row = row.ok_or_else(|| Error::UnknownName { time, name: name.to_owned() })?;
    let ManifestValue::Covariable(reference) = row.value else {
        return Ok(vec![name.to_owned()]);
    };
    let mut tables = Tables::new(time, source);
    let first = tables.covariable(&reference)?;
    let mut names: Vec<String> =
        tables.all()[first].header.names.iter().map(|root| root.name.clone()).collect();
    let mut groups = groups_of(&mut tables, first)?;
    if groups.is_empty() {
        return Ok(names);
    }
    // The other co-variables, each once: its names, and the groups that it names.
    let mut others = Vec::new();
    let mut seen: HashSet<Digest> = HashSet::new();
    seen.insert(reference.digest());
    for (_, row) in read_manifest(manifest, source)? {
        if let ManifestValue::Covariable(reference) = row.value
            && seen.insert(reference.digest())
        {
            let table = tables.covariable(&reference)?;
            others.push((table, groups_of(&mut tables, table)?));
        }
    }
    let mut grows = true;
    while grows {
        grows = false;
        others.retain(|(table, named)| {
            if named.is_disjoint(&groups) {
                return true;
            }
            names.extend(tables.all()[*table].header.names.iter().map(|root| root.name.clone()));
            groups.extend(named.iter().copied());
            grows = true;
            false
        });
    }
    Ok(names)
}

/// The definition groups that a table names, and those that these name.
fn groups_of(tables: &mut Tables<'_>, table: usize) -> Result<HashSet<Digest>> {
    let mut found = HashSet::new();
    let mut open = tables.all()[table].header.groups.clone();
    while let Some(digest) = open.pop() {
        if found.insert(digest) {
            let group = tables.group_table(digest)?;
            open.extend_from_slice(&tables.all()[group].header.groups);
        }
    }
    Ok(found)
}
