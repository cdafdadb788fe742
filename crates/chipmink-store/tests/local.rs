//! The local backend against object_store's own conformance suite, and what it leaves behind.

use chipmink_store::local::{LocalDisk, LocalFiles, System};
use futures::executor::block_on;
use object_store::integration;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use std::sync::Arc;
use tempfile::TempDir;

fn disk(directory: &TempDir, is_durable: bool) -> LocalDisk {
    LocalDisk::new(directory.path().join("a/b"), Arc::new(System), is_durable)
}

#[test]
fn it_conforms_to_the_object_store_trait() {
    for is_durable in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let store = disk(&directory, is_durable);
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            integration::put_get_delete_list(&store).await;
            integration::get_opts(&store).await;
            integration::put_opts(&store, false).await;
            integration::list_uses_directories_correctly(&store).await;
            integration::list_with_delimiter(&store).await;
            integration::rename_and_copy(&store).await;
            integration::copy_if_not_exists(&store).await;
            integration::copy_rename_nonexistent_object(&store).await;
            integration::stream_get(&store).await;
            integration::list_with_offset_exclusivity(&store).await;
        });
    }
}

#[test]
fn an_unfinished_object_leaves_nothing_and_is_never_seen() {
    let directory = tempfile::tempdir().unwrap();
    let store = disk(&directory, true);
    let name = Path::from("packs/one");
    let mut pack = store.create_pack(&name).unwrap();
    pack.write(&[b"some", b" bytes"]).unwrap();
    assert!(block_on(store.get(&name)).is_err());
    drop(pack);
    assert_eq!(std::fs::read_dir(directory.path().join("a/b/tmp")).unwrap().count(), 0);
    let mut pack = store.create_pack(&name).unwrap();
    pack.write(&[b"some", b" bytes"]).unwrap();
    pack.finish().unwrap();
    drop(pack);
    let bytes = block_on(async { store.get(&name).await.unwrap().bytes().await.unwrap() });
    assert_eq!(&bytes[..], b"some bytes");
    assert_eq!(std::fs::read_dir(directory.path().join("a/b/tmp")).unwrap().count(), 0);
}

#[test]
fn one_of_many_creators_wins_and_its_bytes_stand() {
    let directory = tempfile::tempdir().unwrap();
    let store = disk(&directory, false);
    for round in 0..20 {
        let name = Path::from(format!("root/{round:020}"));
        let winners: Vec<u8> = std::thread::scope(|scope| {
            let create = |who: u8| {
                let (store, name) = (store.clone(), name.clone());
                scope.spawn(move || {
                    let payload = PutPayload::from(vec![who; 100]);
                    block_on(store.put_opts(&name, payload, PutMode::Create.into())).is_ok().then_some(who)
                })
            };
            let threads: Vec<_> = (0..16).map(create).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(winners.len(), 1);
        let bytes = block_on(async { store.get(&name).await.unwrap().bytes().await.unwrap() });
        assert_eq!(bytes, vec![winners[0]; 100]);
    }
}

#[test]
fn names_under_tmp_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = disk(&directory, false);
    assert!(block_on(store.put(&Path::from("tmp/x"), PutPayload::from("x"))).is_err());
    assert!(block_on(store.put(&Path::default(), PutPayload::from("x"))).is_err());
}

#[test]
fn leftovers_of_dead_processes_are_removed_once_they_are_old() {
    let directory = tempfile::tempdir().unwrap();
    let store = disk(&directory, false);
    store.make_directories(&["packs"]).unwrap();
    let tmp = directory.path().join("a/b/tmp");
    for (name, days) in [("old", 2), ("new", 0)] {
        let file = std::fs::File::create(tmp.join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(days * 86_400))
            .unwrap();
    }
    store.clean();
    assert!(!tmp.join("old").exists());
    assert!(tmp.join("new").exists());
}
