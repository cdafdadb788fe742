//! The command, run on a repository made with the facade, in this process and as a program.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use chipmink::{OpenOptions, Repository, SaveRequest};
use chipmink_cli::run;
use chipmink_digest::{Grid, digest, digest_region};
use chipmink_format::tag;
use chipmink_types::{
    BlobKind, BlobSink, Component, Export, GlobalName, GraphSource, GridKind, PodKey, PodRecord,
    RegionRecord, SkippedVariable, TimeId, VariableRoot, ViewRecord, WalkError, WalkOutcome, WalkRequest,
    WalkedPod,
};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// A namespace with one variable of each kind; the objects are one pod with a buffer.
struct Fixed {
    text: &'static str,
    has_extra: bool,
}

impl GraphSource for Fixed {
    fn walk(&mut self, _: &WalkRequest<'_>, sink: &mut dyn BlobSink) -> Result<WalkOutcome, WalkError> {
        let pod = self.text.as_bytes();
        sink.put(BlobKind::Pod, digest(pod), pod)?;
        let buffer = vec![7u8; 100_000];
        let root = digest_region(&buffer, &Grid::run(100_000), None, sink)?;
        let region = RegionRecord {
            grid: GridKind::Run,
            row_len: 0,
            first_chunk_len: 0,
            byte_len: 100_000,
            buffer_id: 0,
            root,
            views: vec![ViewRecord { byte_offset: 0 }],
        };
        let record = PodRecord {
            digest: digest(pod),
            byte_len: pod.len() as u64,
            exports: vec![Export::Root(0)],
            dependencies: Vec::new(),
            globals: vec![GlobalName { module: "collections".into(), qualname: "OrderedDict".into() }],
            shapes: Vec::new(),
            regions: vec![region],
            side: None,
            names: Vec::new(),
        };
        let key = PodKey(1);
        let names = vec![("frame".to_owned(), key, 0), ("view".to_owned(), key, 0)];
        let pods = vec![WalkedPod { key, record: Arc::new(record) }];
        let mut variables = vec![
            ("frame".to_owned(), VariableRoot::Stored),
            ("view".to_owned(), VariableRoot::Stored),
            ("seed".to_owned(), VariableRoot::Inline(vec![tag::INT8, 42])),
            (
                "np".to_owned(),
                VariableRoot::Named(GlobalName { module: "numpy".into(), qualname: String::new() }),
            ),
            (
                "lock".to_owned(),
                VariableRoot::Skipped(SkippedVariable {
                    path: ".inner".into(),
                    type_name: "_thread.lock".into(),
                    reason: "a lock belongs to its process".into(),
                }),
            ),
        ];
        if self.has_extra {
            variables.push(("extra".to_owned(), VariableRoot::Inline(vec![tag::TRUE])));
        }
        Ok(WalkOutcome { variables, components: vec![Component { names, pods }], ..WalkOutcome::default() })
    }

    fn adopt(&mut self, _: WalkOutcome) {}

    fn discard(&mut self, _: WalkOutcome) {}

    fn reset(&mut self) {}
}

/// Two versions.
fn repository(path: &Path) -> Repository {
    let repository = Repository::open(path.to_str().unwrap(), OpenOptions::default()).unwrap();
    let request = |message: &str| SaveRequest {
        message: message.to_owned(),
        author: "Ada".into(),
        code: "x = 1\ny = 2".into(),
        ..SaveRequest::default()
    };
    repository.save(&mut Fixed { text: "first pod", has_extra: false }, &request("one\u{7}")).unwrap();
    repository.save(&mut Fixed { text: "second pod", has_extra: true }, &request("two")).unwrap();
    repository
}

fn call(arguments: &[&str]) -> (u8, String, String) {
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let all = ["chipmink"].iter().chain(arguments);
    let status = run(all.map(|argument| (*argument).to_owned()), &mut out, &mut errors);
    (status, String::from_utf8(out).unwrap(), String::from_utf8(errors).unwrap())
}

fn json(arguments: &[&str]) -> Value {
    let (status, out, errors) = call(arguments);
    assert_eq!((status, errors.as_str()), (0, ""), "{arguments:?}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn log_lists_versions_newest_first() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_str().unwrap();
    repository(directory.path());
    let (status, out, _) = call(&["log", place]);
    assert_eq!(status, 0);
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].ends_with("  main  two") && lines[0].trim_start().starts_with("2  20"), "{out}");
    assert!(lines[1].ends_with("  main  one\\u{7}"), "control characters are escaped: {out}");
    let all = json(&["log", place, "--json"]);
    assert_eq!(
        (&all[0]["version"], &all[0]["message"], &all[1]["author"]),
        (&2.into(), &"two".into(), &"Ada".into())
    );
    assert_eq!(all[0]["parents"][0], all[1]["commit"]);
    assert_eq!(json(&["log", place, "--json", "-n", "1"]).as_array().unwrap().len(), 1);
    assert_eq!(json(&["log", place, "--json", "--ref", "other"]), Value::Array(vec![]));
}

#[test]
fn show_tells_what_each_variable_is() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_str().unwrap();
    repository(directory.path());
    let (status, out, _) = call(&["show", place, "1"]);
    assert_eq!(status, 0);
    for part in [
        "version  1 on main",
        "author   Ada",
        "    x = 1\n    y = 2",
        "5 variables",
        "97.7 KiB in 1 pod, together with view",
        "seed   42",
        "np     module numpy",
        "not saved: _thread.lock at lock.inner: a lock belongs to its process",
    ] {
        assert!(out.contains(part), "{part:?} in {out}");
    }
    let all = json(&["show", place, "--json"]);
    assert_eq!((&all["version"], all["variables"].as_array().unwrap().len()), (&2.into(), 6));
    assert_eq!(all["variables"][0]["kind"], "objects");
    assert_eq!(all["variables"][0]["buffer_bytes"], 100_000);
    let pods = json(&["show", place, "2", "frame", "--json"]);
    assert_eq!(pods["pods"][0]["globals"][0], "collections.OrderedDict");
    assert_eq!(pods["root"]["kind"], "pod");
    let (_, text, _) = call(&["show", place, "main", "frame"]);
    assert!(text.contains("names collections.OrderedDict") && text.contains("buffer 01"), "{text}");
}

#[test]
fn diff_names_what_differs() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_str().unwrap();
    repository(directory.path());
    assert_eq!(call(&["diff", place, "1", "2"]).1, "+ extra\n~ frame\n~ view\n");
    assert_eq!(call(&["diff", place, "2", "1"]).1, "- extra\n~ frame\n~ view\n");
    assert_eq!(call(&["diff", place, "2"]).1, "", "the newest, if no other is named");
    let all = json(&["diff", place, "1", "main", "--json"]);
    assert_eq!(
        (&all["added"][0], &all["changed"][1], &all["after"]),
        (&"extra".into(), &"view".into(), &2.into())
    );
}

#[test]
fn a_tag_names_its_version() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_str().unwrap();
    let repository = repository(directory.path());
    repository.create_ref("tag/first", TimeId(1)).unwrap();
    assert!(call(&["show", place, "first"]).1.starts_with("version  1 on main"));
    assert!(call(&["show", place, "tag/first"]).1.starts_with("version  1 on main"));
    assert_eq!(call(&["diff", place, "first"]).1, "+ extra\n~ frame\n~ view\n");
    assert_eq!(call(&["du", place, "first"]).0, 0);
}

#[test]
fn cat_writes_pods_and_buffers() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_str().unwrap();
    repository(directory.path());
    let pod = json(&["show", place, "1", "frame", "--json"])["pods"][0].clone();
    let (pod_digest, buffer) =
        (pod["digest"].as_str().unwrap(), pod["buffers"][0]["digest"].as_str().unwrap());
    assert_eq!(call(&["cat", place, pod_digest]).1, "first pod");
    assert_eq!(call(&["cat", place, buffer, "--buffer"]).1.into_bytes(), vec![7u8; 100_000]);
    let all = json(&["cat", place, pod_digest, "--json"]);
    assert_eq!((&all["byte_len"], &all["hex"]), (&9.into(), &"666972737420706f64".into()));
    assert_eq!(json(&["cat", place, buffer, "--buffer", "--json"])["byte_len"], 100_000);
}

#[test]
fn verify_tells_damage_by_its_status() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_str().unwrap();
    repository(directory.path());
    let (status, out, _) = call(&["verify", place]);
    assert!(status == 0 && out.starts_with("no damage: 2 versions"), "{out}");
    assert_eq!(json(&["verify", place, "--json", "--quick"])["clean"], true);
    // Flip a byte in the middle of each pack.
    for entry in std::fs::read_dir(directory.path().join("packs")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 3;
        bytes[middle] ^= 0x40;
        std::fs::write(&path, bytes).unwrap();
    }
    let (status, out, _) = call(&["verify", place]);
    assert!(status == 1 && out.contains("DAMAGED"), "{out}");
    let (status, out, _) = call(&["verify", place, "--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, &report["clean"]), (1, &false.into()));
}

#[test]
fn errors_name_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_str().unwrap();
    let nowhere = directory.path().join("nowhere");
    let (status, out, errors) = call(&["log", nowhere.to_str().unwrap()]);
    assert!(status == 1 && out.is_empty() && errors.contains("nowhere"), "{errors}");
    assert!(!nowhere.exists(), "looking makes no repository");
    repository(directory.path());
    for (arguments, kind) in [
        (vec!["show", place, "9"], "not-found"),
        (vec!["show", place, "side"], "not-found"),
        (vec!["show", place, "1", "gone"], "not-found"),
        (vec!["cat", place, "01ff"], "argument"),
        (vec!["cat", place, "0100000000000000000000000000000000"], "damaged"),
        (vec!["log", "ftp://host/place"], "unsupported"),
    ] {
        let with_json: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let (status, _, errors) = call(&with_json);
        let error: Value = serde_json::from_str(&errors).unwrap();
        assert_eq!(error["error"]["kind"], kind, "{arguments:?}: {errors}");
        assert_eq!(status, if kind == "argument" { 2 } else { 1 });
        assert!(call(&arguments).2.starts_with("chipmink: "));
    }
    assert_eq!(call(&["frobnicate"]).0, 2);
    assert_eq!(call(&["--version"]).0, 0);
}

#[test]
fn the_program_answers_as_the_library_does() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_str().unwrap();
    repository(directory.path());
    let output =
        Command::new(env!("CARGO_BIN_EXE_chipmink")).args(["diff", place, "1", "2"]).output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), call(&["diff", place, "1", "2"]).1);
    let failed = Command::new(env!("CARGO_BIN_EXE_chipmink")).args(["show", place, "9"]).output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
}

#[test]
fn doctor_says_of_each_facility_whether_it_is_there() {
    let mut out = Vec::new();
    assert_eq!(run(["chipmink", "doctor", "--json"], &mut out, &mut Vec::new()), 0);
    let found: Value = serde_json::from_slice(&out).unwrap();
    for name in ["dirty pages", "shared memory", "CUDA driver", "NVRTC"] {
        let facility = &found["facilities"][name];
        assert!(facility["is_there"].is_boolean() && facility["detail"].is_string(), "{name}: {found}");
    }
    let mut text = Vec::new();
    assert_eq!(run(["chipmink", "doctor"], &mut text, &mut Vec::new()), 0);
    assert!(String::from_utf8(text).unwrap().contains("CUDA driver: "));
}
