use super::*;
use proptest::prelude::*;
use std::io::Write;
use std::path::PathBuf;
use tempfile::TempDir;

const PAGE: u64 = 4096;

/// A file whose bytes depend on where they stand.
fn file(dir: &TempDir, name: &str, byte_len: u64, seed: u8) -> (Arc<File>, PathBuf, Vec<u8>) {
    let path = dir.path().join(name);
    let bytes: Vec<u8> = (0..byte_len).map(|i| (i / 7) as u8 ^ (i >> 9) as u8 ^ seed).collect();
    let mut file = File::create_new(&path).unwrap();
    file.write_all(&bytes).unwrap();
    (Arc::new(File::open(&path).unwrap()), path, bytes)
}

fn piece<'a>(of: &'a (Arc<File>, PathBuf, Vec<u8>), byte_offset: u64, byte_len: u64) -> Piece<'a> {
    Piece::File { file: &of.0, path: &of.1, file_len: of.2.len() as u64, byte_offset, byte_len }
}

fn all(region: &MappedRegion) -> Vec<u8> {
    let mut bytes = vec![0xAA; region.byte_len()];
    region.read_at(0, &mut bytes).unwrap();
    bytes
}

fn budget() -> MapBudget {
    MapBudget::new(10_000)
}

#[test]
fn pieces_of_several_files_are_one_range() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (file(&dir, "a", 10 * PAGE + 5, 1), file(&dir, "b", 4 * PAGE, 2));
    let pieces = [
        piece(&a, 2 * PAGE, 3 * PAGE),
        piece(&b, PAGE, PAGE),
        Piece::Zeros { byte_len: 2 * PAGE },
        piece(&a, 10 * PAGE, 5),
    ];
    let region = MappedRegion::map(&pieces, &budget()).unwrap();
    let expected = [
        &a.2[2 * PAGE as usize..5 * PAGE as usize],
        &b.2[PAGE as usize..2 * PAGE as usize],
        &[0; 2 * PAGE as usize],
        &a.2[10 * PAGE as usize..],
    ]
    .concat();
    assert_eq!(region.byte_len(), expected.len());
    assert!(all(&region) == expected);
    assert_eq!(region.start().as_ptr() as u64 % PAGE, 0);
}

#[test]
fn writing_reaches_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let a = file(&dir, "a", 4 * PAGE, 1);
    let mut region = MappedRegion::map(&[piece(&a, 0, 4 * PAGE)], &budget()).unwrap();
    let other = MappedRegion::map(&[piece(&a, 0, 4 * PAGE)], &budget()).unwrap();
    region.write_at(PAGE as usize + 3, b"changed").unwrap();
    let mut expected = a.2.clone();
    expected[PAGE as usize + 3..][..7].copy_from_slice(b"changed");
    assert!(all(&region) == expected);
    assert!(all(&other) == a.2);
    drop(region);
    assert!(std::fs::read(&a.1).unwrap() == a.2);
}

#[test]
fn a_region_outlives_the_name_and_the_handle_of_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let a = file(&dir, "a", 4 * PAGE, 1);
    assert!(keeps_unlinked_files_of(&a.0));
    let region = MappedRegion::map(&[piece(&a, 0, 4 * PAGE)], &budget()).unwrap();
    let (handle, path, bytes) = a;
    std::fs::remove_file(path).unwrap();
    drop(handle);
    let region = std::thread::spawn(move || region).join().unwrap();
    assert!(all(&region) == bytes);
}

fn keeps_unlinked_files_of(file: &File) -> bool {
    crate::mapping::keeps_unlinked_files(file) || cfg!(not(target_os = "linux"))
}

#[test]
fn a_file_that_was_cut_or_grew_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let a = file(&dir, "a", 4 * PAGE, 1);
    for len in [4 * PAGE - 1, 4 * PAGE + 1, 0] {
        File::options().write(true).open(&a.1).unwrap().set_len(len).unwrap();
        let refused = MappedRegion::map(&[piece(&a, 0, PAGE)], &budget()).unwrap_err();
        assert!(
            matches!(refused, ShmError::Length { expected, found, .. } if expected == 4 * PAGE && found == len)
        );
    }
}

#[test]
fn pieces_that_pages_cannot_hold_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let a = file(&dir, "a", 4 * PAGE, 1);
    let zeros = |byte_len| Piece::Zeros { byte_len };
    for (pieces, bad) in [
        (vec![piece(&a, 5, 100)], 0),
        (vec![piece(&a, 0, 100), piece(&a, PAGE, 100)], 1),
        (vec![piece(&a, 0, 100), zeros(100)], 1),
        (vec![zeros(100), piece(&a, 0, 100)], 1),
        (vec![piece(&a, 3 * PAGE, PAGE + 1)], 0),
        (vec![piece(&a, u64::MAX - PAGE + 1, PAGE)], 0),
        (vec![zeros(PAGE), zeros(u64::MAX)], 1),
        (vec![zeros(i64::MAX as u64), zeros(1)], 1),
    ] {
        let error = MappedRegion::map(&pieces, &budget()).unwrap_err();
        assert!(matches!(error, ShmError::Piece { piece, .. } if piece == bad), "{error}");
    }
    // More than there can be is refused by the system.
    assert!(MappedRegion::map(&[zeros(i64::MAX as u64)], &budget()).is_err());
}

#[test]
fn pieces_that_follow_each_other_are_one_mapping() {
    let dir = tempfile::tempdir().unwrap();
    let a = file(&dir, "a", 1000 * PAGE, 1);
    let budget = MapBudget::new(3);
    let pieces: Vec<Piece<'_>> = (0..999).map(|i| piece(&a, i * PAGE, PAGE)).collect();
    let region = MappedRegion::map(&pieces, &budget).unwrap();
    assert_eq!(budget.left(), 2);
    assert!(all(&region) == a.2[..999 * PAGE as usize]);
    let zeros = [Piece::Zeros { byte_len: 5 }, Piece::Zeros { byte_len: 0 }, Piece::Zeros { byte_len: 9 }];
    let other = MappedRegion::map(&zeros, &budget).unwrap();
    assert_eq!((budget.left(), all(&other)), (1, vec![0; 14]));
    drop(region);
    assert_eq!(budget.left(), 2);
}

#[test]
fn neither_a_region_nor_a_process_has_too_many_mappings() {
    let dir = tempfile::tempdir().unwrap();
    let a = file(&dir, "a", 600 * PAGE, 1);
    let pieces = |count: u64| (0..count).map(|i| piece(&a, 2 * i * PAGE, PAGE)).collect::<Vec<_>>();
    let budget = MapBudget::new(300);
    let region = MappedRegion::map(&pieces(256), &budget).unwrap();
    let error = MappedRegion::map(&pieces(257), &budget).unwrap_err();
    assert!(matches!(error, ShmError::Mappings { needed: 257, limit: MOST_RUNS, .. }));
    let error = MappedRegion::map(&pieces(45), &budget).unwrap_err();
    assert!(matches!(error, ShmError::Mappings { needed: 45, left: 44, limit: 300 }));
    // What failed holds nothing.
    assert_eq!(budget.left(), 44);
    drop(region);
    assert_eq!(budget.left(), 300);
}

#[test]
fn what_is_outside_is_neither_read_nor_written() {
    let mut region = MappedRegion::map(&[Piece::Zeros { byte_len: 10 }], &budget()).unwrap();
    assert!(region.read_at(8, &mut [0; 3]).is_err());
    assert!(region.read_at(usize::MAX, &mut [0; 3]).is_err());
    assert!(region.write_at(11, &[]).is_err());
    region.write_at(10, &[]).unwrap();
    let empty = MappedRegion::map(&[], &budget()).unwrap();
    assert_eq!(empty.byte_len(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_region_has_the_bytes_of_its_pieces(
        picks in proptest::collection::vec((0usize..4, 0u64..20, 1u64..6), 0..40),
        tail in 0u64..PAGE,
        writes in proptest::collection::vec((any::<u16>(), any::<u8>(), 1usize..9000), 0..10),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let files: Vec<_> =
            (0..3).map(|i| file(&dir, &i.to_string(), 26 * PAGE + 17 * i, i as u8)).collect();
        let mut pieces = Vec::new();
        let mut expected = Vec::new();
        let last = picks.len().saturating_sub(1);
        for (i, (which, page, count)) in picks.iter().enumerate() {
            let byte_len = count * PAGE - if i == last { tail } else { 0 };
            if let Some(of) = files.get(*which) {
                pieces.push(piece(of, page * PAGE, byte_len));
                expected.extend_from_slice(&of.2[(page * PAGE) as usize..][..byte_len as usize]);
            } else {
                pieces.push(Piece::Zeros { byte_len });
                expected.resize(expected.len() + byte_len as usize, 0);
            }
        }
        let mut region = MappedRegion::map(&pieces, &budget()).unwrap();
        prop_assert!(all(&region) == expected);
        for (at, value, len) in writes {
            let Some(at) = (at as usize).checked_rem(expected.len()) else { break };
            let len = len.min(expected.len() - at);
            region.write_at(at, &vec![value; len]).unwrap();
            expected[at..at + len].fill(value);
        }
        prop_assert!(all(&region) == expected);
        for of in &files {
            prop_assert!(std::fs::read(&of.1).unwrap() == of.2);
        }
    }
}

#[test]
fn a_long_piece_lies_in_large_pages_as_it_does_in_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let large = LARGE_PAGE_LEN as u64;
    let a = file(&dir, "a", 2 * large + 9 * PAGE, 1);
    for (before, byte_offset) in [(0, 0), (0, 8 * PAGE), (3 * PAGE, 0), (5 * PAGE, 2 * PAGE)] {
        let pieces = [Piece::Zeros { byte_len: before }, piece(&a, byte_offset, 2 * large + PAGE)];
        let region = MappedRegion::map(&pieces, &budget()).unwrap();
        let address = region.start().as_ptr() as u64 + before;
        assert_eq!(address % large, byte_offset % large);
        let expected = &a.2[byte_offset as usize..][..2 * LARGE_PAGE_LEN + PAGE as usize];
        assert!(all(&region)[before as usize..] == *expected);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn pages_are_there_before_they_are_used() {
    let bytes_of = |region: &MappedRegion, field: &str| {
        let start = format!("{:x}-", region.start().as_ptr() as usize);
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let lines = smaps.lines().skip_while(|line| !line.starts_with(&start));
        let field = lines.skip(1).find_map(|line| line.strip_prefix(field)).unwrap();
        field.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    };
    let dir = tempfile::tempdir().unwrap();
    let a = file(&dir, "a", 5_000_000, 1);
    let mut region = MappedRegion::map(&[piece(&a, 0, 5_000_000)], &budget()).unwrap();
    region.write_at(PAGE as usize, b"of the program").unwrap();
    let ahead = region.fault_ahead();
    assert!(bytes_of(&region, "Rss:") < 4_000_000);
    ahead.run();
    assert!(bytes_of(&region, "Rss:") >= 5_000_000);
    assert!(bytes_of(&region, "Anonymous:") < 1_000_000, "what is read stays the file's");
    ahead.run_for_writing();
    assert!(bytes_of(&region, "Anonymous:") >= 5_000_000, "what is written is the process' own");
    let mut expected = a.2.clone();
    expected[PAGE as usize..][..14].copy_from_slice(b"of the program");
    assert!(all(&region) == expected);
    assert!(std::fs::read(&a.1).unwrap() == a.2);
}

#[test]
fn a_region_may_go_while_its_pages_are_looked_up() {
    let dir = tempfile::tempdir().unwrap();
    let a = file(&dir, "a", 40_000_000, 1);
    for round in 0..60 {
        let mut region = MappedRegion::map(&[piece(&a, 0, 40_000_000)], &budget()).unwrap();
        let ahead = region.fault_ahead();
        let again = region.fault_ahead();
        let threads =
            [std::thread::spawn(move || ahead.run()), std::thread::spawn(move || again.run_for_writing())];
        std::thread::sleep(std::time::Duration::from_micros(round * 20));
        drop(region);
        // Others take the addresses at once: nothing may be done to them.
        let others = MappedRegion::map(&[Piece::Zeros { byte_len: 4_000_000 }], &budget()).unwrap();
        assert!(all(&others).iter().all(|byte| *byte == 0));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn pages_of_a_file_that_was_cut_are_not_looked_up() {
    let dir = tempfile::tempdir().unwrap();
    let a = file(&dir, "a", 5_000_000, 1);
    let mut region = MappedRegion::map(&[piece(&a, 0, 5_000_000)], &budget()).unwrap();
    File::options().write(true).open(&a.1).unwrap().set_len(10_000).unwrap();
    region.fault_ahead().run();
    region.fault_ahead().run_for_writing();
}
