use super::*;
use crate::testing::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn any_stream() -> impl Strategy<Value = StreamParts<'static>> {
    let region = (proptest::option::of(vec(any::<u8>(), 0..40)), 100u64..1 << 50, vec(0u64..20, 0..3))
        .prop_map(|(content, len, views)| {
            let byte_len = content.as_ref().map_or(len, |content| content.len() as u64);
            let views = views.into_iter().map(|at| ViewRecord { byte_offset: at.min(byte_len) }).collect();
            StreamRegion { content: content.map(Cow::Owned), byte_len, views }
        });
    let shape = (any_class(), vec(any_name(), 0..3), vec(any_name(), 0..3))
        .prop_map(|(class, dict_names, slot_names)| ShapeRecord { class, dict_names, slot_names });
    let pod = (
        (vec(any::<u8>(), 0..50), vec(any_export(), 0..4), vec(0u32..3, 0..4)),
        (
            vec(any_global(), 0..3),
            vec(shape, 0..3),
            proptest::option::of(vec(any::<u8>(), 0..9)),
            vec(region, 0..3),
        ),
    )
        .prop_map(|((bytes, exports, dependencies), (globals, shapes, side, regions))| StreamPod {
            bytes: Cow::Owned(bytes),
            exports,
            dependencies,
            globals,
            shapes,
            side: side.map(Cow::Owned),
            regions,
        });
    (vec(pod, 3), 0u32..3, any::<u32>(), any_extensions())
        .prop_map(|(pods, pod, export, extensions)| StreamParts { pods, root: (pod, export), extensions })
}

fn one_pod(bytes: &[u8]) -> StreamParts<'_> {
    let pod =
        StreamPod { bytes: Cow::Borrowed(bytes), exports: vec![Export::Root(0)], ..StreamPod::default() };
    StreamParts { pods: vec![pod], ..StreamParts::default() }
}

#[test]
fn a_small_object_has_a_small_stream() {
    let parts = one_pod(b"pod");
    let bytes = encode_stream(&parts);
    assert_eq!(bytes.len(), 3 + 19);
    assert_eq!(decode_stream(&bytes).unwrap(), parts);
}

#[test]
fn buffers_are_not_copied() {
    let pod = vec![1; 100];
    let bytes = encode_stream(&one_pod(&pod));
    let parts = decode_stream(&bytes).unwrap();
    assert!(matches!(parts.pods[0].bytes, Cow::Borrowed(_)));
}

#[test]
fn a_head_and_its_bodies_make_the_stream() {
    let mut parts = one_pod(b"pod");
    let content = Some(Cow::Borrowed(&b"region"[..]));
    parts.pods[0].regions.push(StreamRegion { content, byte_len: 6, views: Vec::new() });
    let mut joined = encode_stream_head(&parts);
    assert_eq!(stream_body_len(&parts), 9);
    bodies(&parts).for_each(|body| joined.extend_from_slice(body));
    assert_eq!(joined, encode_stream(&parts));
}

#[test]
fn pickles_are_told_from_rubbish() {
    for pickle in [&b"\x80\x05N."[..], b"\x80\x04\x95", b"(lp0\n.", b"I1\n.", b"cposix\nsystem\n."] {
        assert!(matches!(decode_stream(pickle), Err(FormatError::Pickle)), "{pickle:?}");
    }
    for rubbish in [&b""[..], b"\x80\x09", b"\xc1ch", b"PK\x03\x04", b"\xc2chm."] {
        assert!(matches!(decode_stream(rubbish), Err(FormatError::NotChipmink { .. })), "{rubbish:?}");
    }
}

#[test]
fn later_versions_are_unsupported() {
    for at in [4, 5] {
        let mut bytes = encode_stream(&one_pod(b"pod"));
        bytes[at] = 2;
        assert!(matches!(decode_stream(&bytes), Err(FormatError::UnsupportedForReading { .. })));
    }
}

proptest! {
    #[test]
    fn streams_come_back(parts in any_stream()) {
        let bytes = encode_stream(&parts);
        let mut in_a_row = bytes.clone();
        in_a_row.extend_from_slice(b"and what follows");
        prop_assert_eq!(stream_len(&in_a_row).unwrap(), bytes.len() as u64);
        prop_assert_eq!(stream_len(&bytes).unwrap(), bytes.len() as u64);
        prop_assert_eq!(stream_len(&encode_stream_head(&parts)).unwrap(), bytes.len() as u64);
        prop_assert_eq!(decode_stream(&bytes).unwrap(), parts);
        prop_assert!((0..bytes.len()).all(|len| decode_stream(&bytes[..len]).is_err()));
    }

    #[test]
    fn a_stream_has_one_encoding(parts in any_stream(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = encode_stream(&parts);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(found) = decode_stream(&bytes) {
            prop_assert_eq!(encode_stream(&found), bytes);
        }
    }
}
