//! Repositories whose checksums are right and whose content lies. They are read by a process with little memory.

use bytes::Bytes;
use chipmink_digest::digest;
use chipmink_format::{
    Codec, Commit, Extensions, IndexRow, InlineCommit, PackHeader, PackInfo, PackLayout, PackName,
    PreviousEntry, RefChange, RefMove, RootEntry, SegmentPlace, StatePlace, Text, encode_segment, pack_path,
    root_path,
};
use chipmink_store::{Place, Store, StoreError, StoreOptions};
use chipmink_testkit::toy::{self, Namespace};
use chipmink_types::{BlobKind, BlobSource, Digest, RepositoryId, TimeId, WriteId};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

const REPOSITORY: RepositoryId = RepositoryId([7; 16]);
/// Address space of the reader, in KiB.
const MEMORY: u64 = 600_000;

fn options() -> StoreOptions {
    StoreOptions { durable: false, ..StoreOptions::default() }
}

fn open(path: &Path) -> Result<Store, StoreError> {
    Store::open(Place::Local(path.to_owned()), options())
}

/// Reads everything with little memory; returns what went wrong.
fn read_all(path: &Path) -> String {
    let script = format!("ulimit -v {MEMORY} && exec \"$0\" \"$1\"");
    let output =
        Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_reader")]).arg(path).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "the reader died: {} {out} {err}", output.status);
    out.into_owned()
}

/// A pack as it is written, then a chance to lie about its index.
struct Forge {
    name: PackName,
    layout: PackLayout,
    bytes: Vec<u8>,
}

impl Forge {
    fn new(name: u8) -> Self {
        let name = PackName([name; 16]);
        let (layout, bytes) = PackLayout::begin(PackHeader { name, repository: REPOSITORY, born: TimeId(0) });
        Forge { name, layout, bytes }
    }

    fn put(&mut self, name: Digest, codec: Codec, decoded_len: u64, base: Option<Digest>, stored: &[u8]) {
        self.layout.append(name, BlobKind::Table, codec, decoded_len, base, stored.len() as u64);
        self.bytes.extend_from_slice(stored);
    }

    /// Writes the pack with an index over `rows`, or the true one.
    fn write(mut self, root: &Path, rows: Option<Vec<IndexRow>>) -> PackInfo {
        let offset = self.bytes.len() as u64;
        let finished = self.layout.finish(&[]);
        let (mut index, mut tail) = (finished.index, finished.tail);
        if let Some(rows) = rows {
            let segment = encode_segment(0, &[], rows);
            let byte_len = segment.bytes.len() as u64;
            index = SegmentPlace { byte_offset: offset, byte_len, head_len: segment.head_len };
            tail = segment.bytes;
        }
        self.bytes.append(&mut tail);
        std::fs::create_dir_all(root.join("packs")).unwrap();
        std::fs::write(root.join(pack_path(self.name)), &self.bytes).unwrap();
        let byte_len = self.bytes.len() as u64;
        PackInfo { name: self.name, byte_len, index, born: TimeId(0), is_synced: true }
    }
}

fn entry(number: u64) -> RootEntry {
    let mut entry = RootEntry::new(TimeId(number), REPOSITORY, WriteId([number as u8; 16]));
    entry.is_synced = true;
    entry
}

fn write_entry(root: &Path, entry: &RootEntry) -> PreviousEntry {
    std::fs::create_dir_all(root.join("root")).unwrap();
    let bytes = entry.encode();
    std::fs::write(root.join(root_path(entry.number)), &bytes).unwrap();
    PreviousEntry { number: entry.number, digest: digest(&bytes) }
}

fn commit(manifest: Digest) -> InlineCommit {
    let commit = Commit {
        parents: Vec::new(),
        manifest,
        saved_at: 0,
        message: Text::default(),
        author: String::new(),
        code: None,
        statistics: BTreeMap::new(),
        extensions: Extensions::default(),
    };
    InlineCommit { bytes: Bytes::from(commit.encode()), aliases: Vec::new() }
}

/// A repository of two entries, of which the second publishes `manifest` and names `packs`.
fn repository(root: &Path, manifest: Digest, packs: Vec<PackInfo>) {
    let previous = write_entry(root, &entry(0));
    let mut second = entry(1);
    second.previous = Some(previous);
    second.packs_added = packs;
    second.commits = vec![commit(manifest)];
    second.refs = vec![RefChange { name: "main".into(), to: RefMove::Inline(0) }];
    write_entry(root, &second);
}

/// Reads a repository whose only pack holds what `put` says, under an index over `rows` or the true one.
fn read_pack(manifest: Digest, put: impl FnOnce(&mut Forge), rows: Option<Vec<IndexRow>>) -> String {
    let directory = tempfile::tempdir().unwrap();
    let mut forge = Forge::new(1);
    put(&mut forge);
    let pack = forge.write(directory.path(), rows);
    repository(directory.path(), manifest, vec![pack]);
    read_all(directory.path())
}

fn row(name: Digest, byte_offset: u64, stored_len: u64, decoded_len: u64, codec: Codec) -> IndexRow {
    IndexRow { digest: name, pack: 0, byte_offset, stored_len, decoded_len, codec, kind: None, base: None }
}

#[test]
fn lengths_in_an_index_are_bounded_before_anything_is_allocated() {
    let name = digest(b"it");
    for (at, lie) in [
        row(name, 64, 1 << 60, 1 << 60, Codec::Raw),
        row(name, 1 << 60, 16, 16, Codec::Raw),
        row(name, 64, 16, 1 << 60, Codec::Zstd),
        row(name, 64, 16, 1 << 36, Codec::Zstd),
        row(name, 0, 0, 0, Codec::Raw),
    ]
    .into_iter()
    .enumerate()
    {
        let report =
            read_pack(name, |forge| forge.put(name, Codec::Raw, 16, None, &[0; 16]), Some(vec![lie]));
        assert!(report.contains("load 1") && report.contains(&name.to_string()), "lie {at}: {report:?}");
    }
}

#[test]
fn frames_that_swell_are_refused() {
    // Four gigabytes of zeros in a hundred kilobytes, and a frame that only claims them.
    let content: u64 = 1 << 32;
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.set_pledged_src_size(Some(content)).unwrap();
    encoder.include_contentsize(true).unwrap();
    let zeros = vec![0; 1 << 20];
    (0..content >> 20).for_each(|_| std::io::Write::write_all(&mut encoder, &zeros).unwrap());
    let bomb = encoder.finish().unwrap();
    let name = digest(b"bomb");
    for stored in [&bomb[..], &bomb[..20]] {
        let report = read_pack(name, |forge| forge.put(name, Codec::Zstd, content, None, stored), None);
        assert!(report.contains("load 1") && report.contains(&name.to_string()), "{report:?}");
    }
}

#[test]
fn blobs_with_another_content_are_damage_and_not_data() {
    let name = digest(b"what was saved");
    let report = read_pack(name, |forge| forge.put(name, Codec::Raw, 14, None, b"something else"), None);
    assert!(report.contains(&format!("blob {name}")), "{report:?}");
}

#[test]
fn deltas_that_are_their_own_ancestors_end() {
    let (one, other) = (digest(b"one"), digest(b"other"));
    let frame = zstd::bulk::compress(&[0; 16], 1).unwrap();
    let report = read_pack(
        one,
        |forge| {
            forge.put(one, Codec::XorDelta, 16, Some(other), &frame);
            forge.put(other, Codec::XorDelta, 16, Some(one), &frame);
        },
        None,
    );
    assert!(report.contains("chain of chunk deltas"), "{report:?}");
}

#[test]
fn a_delta_over_its_base_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let (base, changed) = (vec![1u8; 1000], [vec![1u8; 990], vec![9; 10]].concat());
    let difference: Vec<u8> = base.iter().zip(&changed).map(|(a, b)| a ^ b).collect();
    let mut forge = Forge::new(1);
    forge.put(digest(&base), Codec::Raw, 1000, None, &base);
    let frame = zstd::bulk::compress(&difference, 1).unwrap();
    forge.put(digest(&changed), Codec::XorDelta, 1000, Some(digest(&base)), &frame);
    let pack = forge.write(directory.path(), None);
    repository(directory.path(), digest(&base), vec![pack]);
    assert_eq!(open(directory.path()).unwrap().get(&digest(&changed)).unwrap(), changed);
}

#[test]
fn sparse_deltas_that_lie_are_damage_and_not_data() {
    let base = vec![1u8; 1000];
    let summed = |rest: &[u8]| [&digest(rest).as_bytes()[1..9], rest].concat();
    // Past the end, no such width, more elements than there are, a frame of another length, another content.
    let bomb = zstd::bulk::compress(&vec![0; 1 << 20], 1).unwrap();
    for stored in [
        summed(&[1, 2, 254, 255, 255, 255, 200, 9, 9]),
        summed(&[3, 1, 0, 9]),
        summed(&[1, 0xff, 0xff, 0xff, 0x7f, 0]),
        summed(&[&[17], &bomb[..]].concat()),
        summed(&[1, 1, 7, 9]),
        vec![1, 1, 7, 9],
    ] {
        let name = digest(b"something else");
        let report = read_pack(
            name,
            |forge| {
                forge.put(digest(&base), Codec::Raw, 1000, None, &base);
                forge.put(name, Codec::SparseDelta, 1000, Some(digest(&base)), &stored);
            },
            None,
        );
        assert!(report.contains(&name.to_string()), "{report:?}");
    }
}

#[test]
fn lz4_that_lies_about_its_length_is_damage() {
    for (decoded_len, stored) in
        [(1 << 36, &[0x1f, 7, 1, 0, 255][..]), (40, &[0x1f, 7, 1, 0, 5]), (30, &[0x1f, 7, 9, 0, 5])]
    {
        let name = digest(b"blob");
        let report = read_pack(name, |forge| forge.put(name, Codec::Lz4, decoded_len, None, stored), None);
        assert!(report.contains(&name.to_string()), "{report:?}");
    }
}

#[test]
fn a_root_state_that_lies_is_done_without_or_is_damage() {
    let name = digest(b"state");
    let lies = [
        (64, 16, 1 << 60, Codec::Zstd),
        (64, 16, 1 << 29, Codec::Zstd),
        (1 << 60, 16, 16, Codec::Raw),
        (64, 1 << 60, 1 << 60, Codec::Raw),
        (64, 16, 16, Codec::Raw),
    ];
    for (byte_offset, stored_len, decoded_len, codec) in lies {
        for has_all_entries in [true, false] {
            let directory = tempfile::tempdir().unwrap();
            let mut forge = Forge::new(1);
            forge.put(name, Codec::Raw, 16, None, &[0; 16]);
            let pack = forge.write(directory.path(), None);
            let previous = write_entry(directory.path(), &entry(1));
            let mut last = entry(2);
            last.previous = Some(previous);
            last.state = Some(StatePlace {
                covers: TimeId(1),
                pack: pack.name,
                byte_offset,
                stored_len,
                decoded_len,
                codec,
                digest: name,
            });
            write_entry(directory.path(), &last);
            if !has_all_entries {
                std::fs::remove_file(directory.path().join(root_path(TimeId(1)))).unwrap();
            }
            let report = read_all(directory.path());
            if has_all_entries {
                // All that it would sum up stands in the entries.
                assert!(
                    !report.contains("open") && report.contains("load 2: version 2 is not in"),
                    "{report:?}"
                );
            } else {
                assert!(report.contains("open") && report.contains("packs/"), "{report:?}");
            }
        }
    }
}

#[test]
fn the_last_number_being_taken_ends_writing_and_not_reading() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::create(Place::Local(directory.path().to_owned()), options()).unwrap();
    let mut namespace = Namespace::new();
    namespace.insert("x".into(), vec![1, 2, 3]);
    toy::save(&store, &namespace, "").unwrap();
    std::fs::write(directory.path().join(root_path(TimeId(u64::MAX))), b"squatter").unwrap();
    let store = open(directory.path()).unwrap();
    assert_eq!(store.void_entries(), [TimeId(u64::MAX)]);
    assert_eq!(toy::load(&store, TimeId(1)).unwrap(), namespace);
    let error = toy::save(&store, &namespace, "").unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
}

#[test]
fn numbers_far_apart_cost_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::create(Place::Local(directory.path().to_owned()), options()).unwrap();
    let mut namespace = Namespace::new();
    namespace.insert("x".into(), vec![1, 2, 3]);
    toy::save(&store, &namespace, "").unwrap();
    std::fs::write(directory.path().join(root_path(TimeId(1 << 60))), b"squatter").unwrap();
    let durable = StoreOptions::default();
    let store = Store::open(Place::Local(directory.path().to_owned()), durable).unwrap();
    let time = toy::save(&store, &namespace, "").unwrap();
    assert_eq!(time, TimeId((1 << 60) + 1));
    assert_eq!(toy::load(&store, time).unwrap(), namespace);
    assert!(store.verify(true).unwrap().is_clean());
}

#[test]
fn an_entry_of_another_repository_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let ours = Store::create(Place::Local(directory.path().join("ours")), options()).unwrap();
    let theirs = Store::create(Place::Local(directory.path().join("theirs")), options()).unwrap();
    let mut namespace = Namespace::new();
    namespace.insert("x".into(), vec![1, 2, 3]);
    let time = toy::save(&theirs, &namespace, "").unwrap();
    let path = root_path(time);
    std::fs::copy(directory.path().join("theirs").join(&path), directory.path().join("ours").join(&path))
        .unwrap();
    assert!(matches!(ours.refresh(), Err(StoreError::Replaced { .. })));
    assert!(matches!(toy::save(&ours, &namespace, ""), Err(StoreError::Replaced { .. })));
    let report = read_all(&directory.path().join("ours"));
    assert!(report.contains("void: root entry 1"), "{report:?}");
}

#[test]
fn a_repository_that_needs_more_than_this_build_knows_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let mut reading = entry(0);
    reading.requirements.for_reading = 1 << 50;
    write_entry(directory.path(), &reading);
    let error = open(directory.path()).unwrap_err().to_string();
    assert!(error.contains("newer chipmink"), "{error}");

    let directory = tempfile::tempdir().unwrap();
    let mut writing = entry(0);
    writing.requirements.for_writing = 1 << 50;
    write_entry(directory.path(), &writing);
    let store = open(directory.path()).unwrap();
    let error = toy::save(&store, &Namespace::new(), "").unwrap_err().to_string();
    assert!(error.contains("read-only"), "{error}");
}

#[test]
fn condemned_packs_are_never_read() {
    let directory = tempfile::tempdir().unwrap();
    let name = digest(b"swept");
    let mut forge = Forge::new(1);
    forge.put(name, Codec::Raw, 5, None, b"swept");
    let pack = forge.write(directory.path(), None);
    repository(directory.path(), name, vec![pack]);
    let store = open(directory.path()).unwrap();
    assert!(store.contains(&name).unwrap());
    let mut third = entry(2);
    let bytes = std::fs::read(directory.path().join(root_path(TimeId(1)))).unwrap();
    third.previous = Some(PreviousEntry { number: TimeId(1), digest: digest(&bytes) });
    third.packs_condemned = vec![pack.name];
    write_entry(directory.path(), &third);
    store.refresh().unwrap();
    assert!(!store.contains(&name).unwrap());
    assert!(store.get(&name).is_err());
    assert!(!open(directory.path()).unwrap().contains(&name).unwrap());
}

#[test]
fn a_sparse_file_claims_no_memory() {
    let directory = tempfile::tempdir().unwrap();
    let name = digest(b"hole");
    let mut forge = Forge::new(1);
    forge.put(name, Codec::Raw, 16, None, &[0; 16]);
    let byte_len = 1 << 40;
    let pack =
        forge.write(directory.path(), Some(vec![row(name, 64, byte_len - 64, byte_len - 64, Codec::Raw)]));
    let path = directory.path().join(pack_path(pack.name));
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(byte_len).unwrap();
    repository(directory.path(), name, vec![PackInfo { byte_len, ..pack }]);
    let report = read_all(directory.path());
    assert!(report.contains("load 1"), "{report:?}");
}
