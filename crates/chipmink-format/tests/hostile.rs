//! Untrusted bytes: every decoder, on random bytes and on mutations of sound ones, gives a value or an error. The entries
//! are those that run under libFuzzer (`tests/fuzz`).

#[path = "../../../tests/fuzz/entries/format.rs"]
mod entries;

use bytes::Bytes;
use chipmink_digest::{NodeKind, TreeBuilder, digest};
use chipmink_format::*;
use chipmink_types::{
    BlobError, BlobKind, BlobSink, BlobSource, Digest, Export, GlobalName, GridKind, RegionRecord,
    RepositoryId, ShapeClass, ShapeRecord, Slot, TimeId, ViewRecord, WriteId,
};
use proptest::prelude::*;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Has nothing and takes all.
struct Nowhere;

impl BlobSink for Nowhere {
    fn put(&mut self, _: BlobKind, _: Digest, _: &[u8]) -> Result<bool, BlobError> {
        Ok(true)
    }

    fn holds(&mut self, _: &Digest) -> bool {
        false
    }
}

impl BlobSource for Nowhere {
    fn get(&self, digest: &Digest) -> Result<Bytes, BlobError> {
        Err(BlobError::Missing { digest: *digest })
    }
}

fn name() -> GlobalName {
    GlobalName { module: "collections".to_owned(), qualname: "OrderedDict".to_owned() }
}

/// Keeps the last node that was put: the root.
#[derive(Default)]
struct Last(Vec<u8>);

impl BlobSink for Last {
    fn put(&mut self, _: BlobKind, _: Digest, bytes: &[u8]) -> Result<bool, BlobError> {
        self.0 = bytes.to_vec();
        Ok(true)
    }

    fn holds(&mut self, _: &Digest) -> bool {
        false
    }
}

fn row() -> PodRow {
    let region = RegionRecord {
        grid: GridKind::Rows,
        row_len: 70_000,
        first_chunk_len: 0,
        byte_len: 140_000,
        buffer_id: 3,
        root: digest(b"region"),
        views: vec![ViewRecord { byte_offset: 0 }, ViewRecord { byte_offset: 70_000 }],
    };
    PodRow {
        rank: 3 << 40,
        digest: digest(b"pod"),
        byte_len: 1000,
        exports: vec![Export::Root(0), Export::Vacant, Export::Memo(5)],
        dependencies: vec![Dependency::Local(Slot(7)), Dependency::Definition { group: 0, slot: Slot(1) }],
        globals: vec![digest(b"global")],
        shapes: vec![RowShape { class: ShapeClass::Global(0), names: digest(b"names") }],
        regions: vec![region],
        names: vec!["df".to_owned()],
        side: Some(digest(b"side")),
        extensions: Extensions::default(),
    }
}

fn entry() -> RootEntry {
    let mut entry = RootEntry::new(TimeId(7), RepositoryId([1; 16]), WriteId([2; 16]));
    let pack = PackName([3; 16]);
    let place = SegmentPlace { byte_offset: 100, byte_len: 50, head_len: 30 };
    entry.previous = Some(PreviousEntry { number: TimeId(6), digest: digest(b"6") });
    entry.commits.push(InlineCommit {
        bytes: commit().encode().into(),
        aliases: vec![(RepositoryId([4; 16]), TimeId(9))],
    });
    entry.refs.push(RefChange { name: "main".to_owned(), to: RefMove::Inline(0) });
    entry.packs_added.push(PackInfo {
        name: pack,
        byte_len: 200,
        index: place,
        born: TimeId(5),
        is_synced: true,
    });
    entry.segments_added.push(SegmentInfo { pack, place, level: 1, covers: vec![pack] });
    entry.packs_condemned.push(pack);
    entry.leases.push(LeaseChange::Released([5; 16]));
    entry.synced_through = Some(TimeId(6));
    entry
}

fn commit() -> Commit {
    Commit {
        parents: vec![digest(b"parent")],
        manifest: digest(b"manifest"),
        saved_at: 1,
        message: Text::Inline("message".to_owned()),
        author: "author".to_owned(),
        code: Some(Text::Stored { digest: digest(b"code"), byte_len: 1000 }),
        statistics: BTreeMap::from([("objects".to_owned(), "5".to_owned())]),
        extensions: Extensions::default(),
    }
}

/// Sound input for the entry of this name.
fn sound(entry_name: &str) -> Vec<u8> {
    match entry_name {
        "commit" => commit().encode(),
        "covariable" => {
            let mut covariable =
                Covariable { next_slot: 1, groups: vec![digest(b"group")], ..Covariable::default() };
            covariable.names.push(NamedRoot { name: "df".to_owned(), slot: Slot(0), export: 0 });
            let edit = (slot_key(Slot(0)).to_vec(), Some(row().encode(&mut Nowhere).expect("it takes all")));
            covariable
                .table
                .apply_inline(&[edit], 1024, &Nowhere, &mut Nowhere)
                .expect("an empty table is edited");
            covariable.encode()
        }
        "delta" => {
            let base = vec![7; 1000];
            let mut compressor = Compressor::new();
            let (_, delta) = compressor.compress_delta(&vec![9; 1000], &base, 500).expect("it compresses");
            [&base[..delta.len()], delta].concat()
        }
        "digest tree" => {
            let mut builder = TreeBuilder::new(NodeKind::Region);
            (0..257u32).for_each(|i| builder.push(digest(&i.to_le_bytes())));
            let mut root = Vec::new();
            let emit = &mut |_, bytes: &[u8]| -> Result<(), ()> {
                root = bytes.to_vec();
                Ok(())
            };
            builder.finish(emit).expect("nothing fails");
            root
        }
        "frame" => {
            let bytes: Vec<u8> = (0..2000u32).map(|i| (i / 7 * (i % 7)) as u8).collect();
            let mut compressor = Compressor::new();
            let stored = compressor.compress(Method::Zstd, &bytes, 2000).expect("it compresses");
            [&2000u32.to_le_bytes()[..], stored].concat()
        }
        "global descriptor" => encode_global(&name()),
        "list" => {
            let mut last = Last::default();
            store_list(&(0..9000u32).map(|i| (i * i) as u8).collect::<Vec<_>>(), &mut last)
                .expect("it takes all");
            last.0
        }
        "manifest row" => ManifestRow { order: 1 << 40, value: ManifestValue::Named(name()) }.encode(),
        "pack footer" | "pack header" => {
            let header =
                PackHeader { name: PackName([1; 16]), repository: RepositoryId([2; 16]), born: TimeId(3) };
            let (layout, mut bytes) = PackLayout::begin(header);
            bytes.extend_from_slice(&layout.finish(&[]).tail);
            bytes
        }
        "pod row" => row().encode(&mut Nowhere).expect("it takes all"),
        "root entry" => {
            // The entry adds the checksum.
            let bytes = entry().encode();
            bytes[..bytes.len() - 8].to_vec()
        }
        "root state" => {
            let mut state = RootState::new(RepositoryId([1; 16]));
            let target = RefTarget { commit: digest(b"c"), time: TimeId(3), manifest: digest(b"m") };
            state.refs.insert("main".to_owned(), target);
            state.packs = entry().packs_added;
            state.segments = entry().segments_added;
            state.condemned = vec![(PackName([8; 16]), TimeId(2))];
            state.leases = vec![Lease { id: [1; 16], holds: TimeId(1), expires_at: 5 }];
            state.refs_table = Some(digest(b"refs"));
            state.encode()
        }
        "sparse delta" => {
            let (base, mut bytes) = (vec![7; 1000], vec![7; 1000]);
            (0..1000).step_by(90).for_each(|at| bytes[at] = at as u8);
            let mut compressor = Compressor::new();
            let (codec, delta) = compressor.compress_delta(&bytes, &base, 500).expect("little changed");
            assert_eq!(codec, Codec::SparseDelta);
            [&base[..delta.len()], delta].concat()
        }
        "lz4" => {
            let bytes: Vec<u8> = (0..2000u32).map(|i| (i / 9) as u8).collect();
            let mut compressor = Compressor::new();
            let stored = compressor.compress(Method::Lz4, &bytes, 2000).expect("it compresses");
            [&2000u32.to_le_bytes()[..], stored].concat()
        }
        "segment" => {
            // As the entry splits it: the length of the head's middle, that, and the block without its checksum.
            let row = |i: u8| IndexRow {
                digest: digest(&[i]),
                pack: 0,
                byte_offset: 64,
                stored_len: 10,
                decoded_len: 100,
                codec: Codec::Zstd,
                kind: Some(BlobKind::Pod),
                base: None,
            };
            let segment = encode_segment(1, &[PackName([1; 16])], (0..9).map(row).collect());
            let (head, block) = segment.bytes.split_at(segment.head_len as usize);
            let middle = &head[6..head.len() - 8];
            [&[middle.len() as u8][..], middle, &block[..block.len() - 8]].concat()
        }
        "shape descriptor" => encode_names(&["x".to_owned(), "y".to_owned()], &["z".to_owned()]),
        "stream" => {
            let shape = ShapeRecord {
                class: ShapeClass::Dependency(0, 1),
                dict_names: vec!["x".to_owned()],
                slot_names: Vec::new(),
            };
            let content = Some(Cow::Borrowed(&b"region"[..]));
            let views = vec![ViewRecord { byte_offset: 2 }];
            let pod = StreamPod {
                bytes: Cow::Borrowed(b"pod"),
                exports: vec![Export::Root(0), Export::Memo(9)],
                dependencies: vec![0],
                globals: vec![name()],
                shapes: vec![shape],
                side: Some(Cow::Borrowed(b"side")),
                regions: vec![StreamRegion { content, byte_len: 6, views }],
            };
            encode_stream(&StreamParts { pods: vec![pod], root: (0, 0), extensions: Extensions::default() })
        }
        "table" => {
            let mut last = Last::default();
            let edits: Vec<Edit> =
                (0..300u32).map(|i| (i.to_be_bytes().to_vec(), Some(vec![1; 40]))).collect();
            Tree::empty().apply(&edits, &Nowhere, &mut last).expect("an empty table is edited");
            last.0
        }
        other => panic!("no sound input for {other:?}"),
    }
}

/// A mutation of bytes: a few flips, a cut, bytes put in or taken out, a number made huge.
fn mutate(bytes: &mut Vec<u8>, steps: &[(u8, prop::sample::Index, u8)]) {
    for (kind, at, byte) in steps {
        if bytes.is_empty() {
            return;
        }
        let at = at.index(bytes.len());
        match kind % 6 {
            0 | 1 => bytes[at] ^= 1 << (byte % 8),
            2 => bytes[at] = *byte,
            3 => bytes.truncate(at),
            4 => bytes.insert(at, *byte),
            _ => drop(bytes.splice(at..at + 1, [0xff, 0xff, 0xff, 0xff, 0x7f])),
        }
    }
}

#[test]
fn sound_input_reaches_the_checks_behind_the_decoders() {
    for (entry_name, entry) in entries::ALL {
        entry(&sound(entry_name));
    }
    // The entries cannot say whether they decoded; these are the ones that need no store.
    assert!(Commit::decode(&sound("commit")).is_ok());
    assert!(Covariable::decode(&sound("covariable")).is_ok());
    assert!(PodRow::decode(&sound("pod row"), &Nowhere).is_ok());
    assert!(RootState::decode(&sound("root state")).is_ok());
    assert!(decode_stream(&sound("stream")).is_ok());
    assert!(RootEntry::decode(&entry().encode(), TimeId(7)).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn mutated_bytes_give_errors(steps in prop::collection::vec(any::<(u8, prop::sample::Index, u8)>(), 1..6)) {
        for (entry_name, entry) in entries::ALL {
            let mut bytes = sound(entry_name);
            mutate(&mut bytes, &steps);
            entry(&bytes);
        }
    }

    #[test]
    fn random_bytes_give_errors(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for (_, entry) in entries::ALL {
            entry(&bytes);
        }
    }

    /// Random bytes behind what makes a decoder go on.
    #[test]
    fn random_bytes_behind_a_sound_start_give_errors(start in 1usize..60, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for (entry_name, entry) in entries::ALL {
            let sound = sound(entry_name);
            entry(&[&sound[..start.min(sound.len())], &bytes].concat());
        }
    }
}
