//! Regions that are mapped: the same bytes as those that are read, and damage is found when it was promised.

use crate::graph::{Node, Root, ToySource, World};
use crate::random_saves::open;
use chipmink::{MapCheck, MappedRegion, RegionMapper, Repository, SaveRequest, Unchecked};
use chipmink_testkit::Random;
use chipmink_types::{BlobError, BlobSource, PodSource, RegionRecord, TimeId};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

const CHUNK: usize = 64 * 1024;

/// Saves one node with a region.
fn save(repository: &Repository, source: &mut ToySource, region: &[u8]) -> (TimeId, u64) {
    let node = Node { region: region.to_vec(), ..Node::default() };
    match source.world.root("a") {
        Some(Root::Node(id)) => {
            let id = *id;
            source.world.nodes.insert(id, node);
        }
        _ => {
            let id = source.world.add(node);
            source.world.bind("a", Root::Node(id));
        }
    }
    let saved = repository.save(source, &SaveRequest::default()).unwrap();
    (saved.time, saved.report.bytes_written)
}

type Mapped = (Option<MappedRegion>, Vec<Unchecked>);

fn map(repository: &Repository, time: TimeId, check: MapCheck) -> Result<Mapped, BlobError> {
    let plan = repository.plan(time, None).unwrap();
    let region = plan.pods.iter().find_map(|pod| pod.regions.first()).unwrap();
    let mut pods = repository.pods(&plan);
    let mapper = repository.mapper(&plan, check);
    let mapped = mapper.map(region)?;
    let mut bytes = vec![0; region.byte_len as usize];
    if let Some(mapped) = &mapped {
        mapped.read_at(0, &mut bytes).unwrap();
        let mut read = vec![0; region.byte_len as usize];
        if pods.read_region(region, &mut read).is_ok() && check == MapCheck::Eager {
            assert!(read == bytes);
        }
    }
    let unchecked = mapper.take_unchecked();
    assert!(unchecked.iter().all(|(root, _)| *root == region.root));
    Ok((mapped, unchecked.into_iter().map(|(_, unchecked)| unchecked).collect()))
}

fn content(mapped: &Mapped) -> Vec<u8> {
    let region = mapped.0.as_ref().expect("it can be mapped");
    let mut bytes = vec![0; region.byte_len()];
    region.read_at(0, &mut bytes).unwrap();
    bytes
}

fn packs(path: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(path.join("packs")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Whether this file system is one on which anything is mapped.
fn can_map(path: &Path) -> bool {
    cfg!(target_os = "linux") && chipmink_shm::keeps_unlinked_files(&File::open(path).unwrap())
}

#[test]
fn mapped_regions_have_the_bytes_of_read_ones() {
    let directory = tempfile::tempdir().unwrap();
    if !can_map(directory.path()) {
        return;
    }
    let repository = open(directory.path());
    let (mut source, mut random) = (ToySource::new(World::default()), Random::new(7));
    for byte_len in [300_000, 4 * CHUNK, 20 * CHUNK + 4096, 20 * CHUNK + 17] {
        let region = random.bytes(byte_len);
        let (time, _) = save(&repository, &mut source, &region);
        for check in [MapCheck::Eager, MapCheck::Later] {
            let mapped = map(&repository, time, check).unwrap();
            assert!(content(&mapped) == region, "{byte_len}");
            assert_eq!(mapped.1.is_empty(), check == MapCheck::Eager);
            mapped.1.iter().for_each(|unchecked| unchecked.check().unwrap());
        }
    }
}

#[test]
fn small_and_compressed_regions_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let repository = open(directory.path());
    let (mut source, mut random) = (ToySource::new(World::default()), Random::new(7));
    for region in [random.bytes(100_000), vec![1; 2_000_000]] {
        let (time, _) = save(&repository, &mut source, &region);
        assert!(map(&repository, time, MapCheck::Eager).unwrap().0.is_none());
    }
}

/// Chunks that changed lie in later packs: the region is put together of many pieces.
#[test]
fn a_region_that_changed_here_and_there_is_still_one_range() {
    let directory = tempfile::tempdir().unwrap();
    if !can_map(directory.path()) {
        return;
    }
    let repository = open(directory.path());
    let (mut source, mut random) = (ToySource::new(World::default()), Random::new(3));
    let mut region = random.bytes(80 * CHUNK + 999);
    save(&repository, &mut source, &region);
    for _ in 0..20 {
        let at = random.below(region.len());
        region[at] ^= 0x55;
        let (time, bytes_written) = save(&repository, &mut source, &region);
        // The chunk, its padding, and what says where it is.
        assert!(bytes_written <= (CHUNK + 16 * 1024) as u64, "{bytes_written}");
        let mapped = map(&repository, time, MapCheck::Later).unwrap();
        assert!(content(&mapped) == region);
    }
    assert!(repository.verify(true).unwrap().is_clean());
}

/// In more pieces than may be mapped: it is one range of the first pack, with the others written into it.
#[test]
fn a_region_of_very_many_pieces_is_mapped_with_what_lies_between() {
    let directory = tempfile::tempdir().unwrap();
    if !can_map(directory.path()) {
        return;
    }
    let repository = open(directory.path());
    let (mut source, mut random) = (ToySource::new(World::default()), Random::new(3));
    let mut region = random.bytes(700 * CHUNK + 999);
    save(&repository, &mut source, &region);
    // Some are stored as differences, some as they are.
    for i in (1..700).step_by(4) {
        region[i * CHUNK] ^= 1;
        region[(i + 1) * CHUNK..(i + 2) * CHUNK].copy_from_slice(&random.bytes(CHUNK));
    }
    let (time, _) = save(&repository, &mut source, &region);
    for check in [MapCheck::Eager, MapCheck::Later] {
        let mapped = map(&repository, time, check).unwrap();
        assert!(mapped.0.is_some());
        assert!(content(&mapped) == region);
        mapped.1.iter().for_each(|unchecked| unchecked.check().unwrap());
    }
}

#[test]
fn a_region_of_which_no_pack_holds_much_is_read() {
    let directory = tempfile::tempdir().unwrap();
    if !can_map(directory.path()) {
        return;
    }
    let repository = open(directory.path());
    let (mut source, mut random) = (ToySource::new(World::default()), Random::new(3));
    let mut region = random.bytes(600 * CHUNK);
    let (mut time, _) = save(&repository, &mut source, &region);
    for turn in 1..4 {
        for i in (turn..600).step_by(4) {
            region[i * CHUNK..(i + 1) * CHUNK].copy_from_slice(&random.bytes(CHUNK));
        }
        time = save(&repository, &mut source, &region).0;
    }
    assert!(map(&repository, time, MapCheck::Later).unwrap().0.is_none());
}

/// Damages the middle of the largest pack.
fn damage(path: &Path) {
    let pack = packs(path).into_iter().max_by_key(|pack| pack.metadata().unwrap().len()).unwrap();
    let file = OpenOptions::new().write(true).open(&pack).unwrap();
    file.write_all_at(b"damage", pack.metadata().unwrap().len() / 2).unwrap();
}

#[test]
fn damage_is_found_at_once_or_by_the_later_check() {
    let directory = tempfile::tempdir().unwrap();
    if !can_map(directory.path()) {
        return;
    }
    let repository = open(directory.path());
    let (mut source, mut random) = (ToySource::new(World::default()), Random::new(3));
    let (time, _) = save(&repository, &mut source, &random.bytes(10 * CHUNK));
    damage(directory.path());
    assert!(matches!(map(&repository, time, MapCheck::Eager), Err(BlobError::Damaged { .. })));
    let mapped = map(&repository, time, MapCheck::Later).unwrap();
    assert!(matches!(mapped.1[0].check(), Err(BlobError::Damaged { .. })));
}

/// What the program writes to its memory is no damage.
#[test]
fn the_later_check_looks_at_the_file_and_outlives_its_name() {
    let directory = tempfile::tempdir().unwrap();
    if !can_map(directory.path()) {
        return;
    }
    let repository = open(directory.path());
    let (mut source, mut random) = (ToySource::new(World::default()), Random::new(3));
    let region = random.bytes(10 * CHUNK);
    let (time, _) = save(&repository, &mut source, &region);
    let mut mapped = map(&repository, time, MapCheck::Later).unwrap();
    mapped.0.as_mut().unwrap().write_at(5, b"written by the program").unwrap();
    packs(directory.path()).into_iter().for_each(|pack| std::fs::remove_file(pack).unwrap());
    mapped.1[0].check().unwrap();
    assert!(content(&mapped)[100..] == region[100..]);
}

#[test]
fn a_pack_that_was_cut_is_not_mapped() {
    let directory = tempfile::tempdir().unwrap();
    let repository = open(directory.path());
    let (mut source, mut random) = (ToySource::new(World::default()), Random::new(3));
    let (time, _) = save(&repository, &mut source, &random.bytes(10 * CHUNK));
    for pack in packs(directory.path()) {
        let byte_len = pack.metadata().unwrap().len();
        OpenOptions::new().write(true).open(&pack).unwrap().set_len(byte_len - 1).unwrap();
    }
    for check in [MapCheck::Eager, MapCheck::Later] {
        assert!(!matches!(map(&repository, time, check), Ok((Some(_), _))));
    }
}

/// Saves regions, each of a variable of its own, in one version.
fn save_all(repository: &Repository, regions: &[Vec<u8>]) -> TimeId {
    let mut source = ToySource::new(World::default());
    for (i, region) in regions.iter().enumerate() {
        let node = Node { region: region.clone(), ..Node::default() };
        let id = source.world.add(node);
        source.world.bind(&format!("v{i}"), Root::Node(id));
    }
    repository.save(&mut source, &SaveRequest::default()).unwrap().time
}

/// The regions of a version, beside their bytes.
fn regions_of<'a>(
    repository: &Repository,
    time: TimeId,
    all: &'a [Vec<u8>],
) -> Vec<(RegionRecord, &'a Vec<u8>)> {
    let plan = repository.plan(time, None).unwrap();
    let mut pods = repository.pods(&plan);
    let mut found = Vec::new();
    for region in plan.pods.iter().flat_map(|pod| pod.regions.clone()) {
        let mut bytes = vec![0; region.byte_len as usize];
        pods.read_region(&region, &mut bytes).unwrap();
        found.push((region, all.iter().find(|each| **each == bytes).unwrap()));
    }
    assert_eq!(found.len(), all.len());
    found
}

fn check_mapped(mapper: &RegionMapper, region: &RegionRecord, bytes: &[u8]) {
    let mapped = mapper.map(region).unwrap().expect("it can be mapped");
    let mut content = vec![0; bytes.len()];
    mapped.read_at(0, &mut content).unwrap();
    assert!(content == bytes);
}

#[test]
fn regions_that_are_found_together_have_each_their_own_bytes() {
    let directory = tempfile::tempdir().unwrap();
    if !can_map(directory.path()) {
        return;
    }
    let repository = open(directory.path());
    let mut random = Random::new(11);
    let mut all: Vec<Vec<u8>> = (0..40).map(|i| random.bytes(5 * CHUNK + 97 * i)).collect();
    // One is what another is, and one is the beginning of it.
    all[7] = all[3].clone();
    all[9] = all[3][..5 * CHUNK].to_vec();
    let time = save_all(&repository, &all);
    let regions = regions_of(&repository, time, &all);
    let repository = open(directory.path());
    let plan = repository.plan(time, None).unwrap();
    for turn in 0..6 {
        let mapper = repository.mapper(&plan, MapCheck::Later);
        let mut order: Vec<usize> = (0..regions.len()).collect();
        match turn {
            0 => {}
            1 => order.reverse(),
            _ => order.sort_by_cached_key(|_| random.below(1000)),
        }
        for i in &order {
            check_mapped(&mapper, &regions[*i].0, regions[*i].1);
        }
        let records: Vec<RegionRecord> = order.iter().map(|i| regions[*i].0.clone()).collect();
        let read: Vec<Mutex<Vec<u8>>> =
            order.iter().map(|i| Mutex::new(vec![0; regions[*i].1.len()])).collect();
        let take = |ordinal: usize, at: u64, bytes: &[u8]| {
            read[ordinal].lock().unwrap()[at as usize..][..bytes.len()].copy_from_slice(bytes);
        };
        mapper.read_regions(&records, &take).unwrap();
        for (i, bytes) in order.iter().zip(read) {
            assert!(bytes.into_inner().unwrap() == *regions[*i].1);
        }
        mapper.check_all().unwrap();
    }
}

#[test]
fn the_damage_of_one_region_is_not_that_of_its_neighbours() {
    let directory = tempfile::tempdir().unwrap();
    if !can_map(directory.path()) {
        return;
    }
    let repository = open(directory.path());
    let mut random = Random::new(12);
    let all: Vec<Vec<u8>> = (0..20).map(|_| random.bytes(5 * CHUNK)).collect();
    let time = save_all(&repository, &all);
    let regions = regions_of(&repository, time, &all);
    // What says which chunks the sixth one has.
    let node = repository.store().get(&regions[5].0.root).unwrap();
    for pack in packs(directory.path()) {
        let mut bytes = std::fs::read(&pack).unwrap();
        let places: Vec<usize> =
            (0..=bytes.len() - node.len()).filter(|at| bytes[*at..].starts_with(&node)).collect();
        places.iter().for_each(|at| bytes[at + node.len() / 2] ^= 1);
        std::fs::write(&pack, bytes).unwrap();
    }
    let repository = open(directory.path());
    let plan = repository.plan(time, None).unwrap();
    let mapper = repository.mapper(&plan, MapCheck::Eager);
    for (i, (region, bytes)) in regions.iter().enumerate() {
        match i {
            5 => assert!(matches!(mapper.map(region), Err(BlobError::Damaged { .. }))),
            _ => check_mapped(&mapper, region, bytes),
        }
    }
    let records: Vec<RegionRecord> = regions.iter().map(|(region, _)| region.clone()).collect();
    assert!(mapper.read_regions(&records, &|_, _, _| ()).is_err());
    mapper.read_regions(&records[6..], &|_, _, _| ()).unwrap();
}
