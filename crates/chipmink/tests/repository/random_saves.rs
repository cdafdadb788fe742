//! Random graphs over many saves: every version stays what it was, whole and in part, also after reopening.

use crate::compare::check;
use crate::graph::{ToySource, World};
use chipmink::{OpenOptions, Repository, SaveRequest};
use chipmink_store::StoreOptions;
use chipmink_testkit::Random;
use chipmink_types::TimeId;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

pub(crate) fn open(path: &Path) -> Repository {
    let store = StoreOptions { durable: false, ..StoreOptions::default() };
    Repository::open(path.to_str().unwrap(), OpenOptions { store, ..OpenOptions::default() }).unwrap()
}

type Version = (TimeId, World, HashMap<u64, (u64, usize)>);

fn check_in_part(repository: &Repository, (time, world, order): &Version, random: &mut Random) {
    let names: Vec<String> =
        world.names.iter().filter(|_| random.below(3) == 0).map(|(name, _)| name.clone()).collect();
    check(repository, *time, world, order, Some(&names));
}

fn random_run(seed: u64, saves: usize) {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random::new(seed);
    let mut repository = open(directory.path());
    let mut source = ToySource::new(World::default());
    source.is_terse = seed.is_multiple_of(2);
    let mut versions: Vec<Version> = Vec::new();
    for _ in 0..saves {
        let mut mutated = BTreeSet::new();
        for _ in 0..random.below(5) {
            mutated.extend(source.world.mutate(&mut random));
        }
        match random.below(12) {
            0 => {
                repository = open(directory.path());
                let is_terse = source.is_terse;
                source = ToySource::new(source.world);
                source.is_terse = is_terse;
            }
            1 if !versions.is_empty() => {
                // Go back: the world is that of an old version, and so is the base.
                let (time, world, _) = versions[random.below(versions.len())].clone();
                source.world = world;
                repository.set_base("main", time).unwrap();
                mutated.clear();
            }
            _ => {}
        }
        let accessed = (random.below(3) > 0).then(|| mutated.into_iter().collect());
        let request = SaveRequest { accessed, message: format!("seed {seed}"), ..SaveRequest::default() };
        let saved = repository.save(&mut source, &request).unwrap();
        assert_eq!(repository.base("main"), Some(saved.time));
        versions.push((saved.time, source.world.clone(), source.order()));
        let (time, world, order) = versions.last().unwrap();
        check(&repository, *time, world, order, None);
        check_in_part(&repository, versions.last().unwrap(), &mut random);
    }
    for repository in [&repository, &open(directory.path())] {
        for version in &versions {
            check(repository, version.0, &version.1, &version.2, None);
            check_in_part(repository, version, &mut random);
        }
    }
    let report = repository.verify(true).unwrap();
    assert!(report.is_clean(), "{report:?}");
}

#[test]
fn every_version_stays_what_it_was() {
    // More seeds than the usual ones: CHIPMINK_SEEDS=5000 cargo test -p chipmink
    let seeds = std::env::var("CHIPMINK_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(60);
    for seed in 0..seeds {
        random_run(seed, 14);
    }
}
