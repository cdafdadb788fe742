//! When the last number of a root log is spent, a repository can be read, and whoever would publish is told.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use chipmink_digest::digest;
use chipmink_format::{PreviousEntry, RootEntry, root_path};
use chipmink_store::{
    Backend, Place, Retention, Store, StoreError, StoreOptions, SweepRequest, TransferOptions,
};
use chipmink_testkit::toy::{self, Namespace};
use chipmink_types::{TimeId, WriteId};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn namespace(byte: u8) -> Namespace {
    Namespace::from([("a".to_owned(), vec![byte; 300])])
}

/// A repository of two versions whose log ends with the highest number that there is.
fn full() -> Store {
    let objects = Arc::new(InMemory::new());
    let store =
        Store::create_in(Backend::remote(objects.clone(), "full://"), StoreOptions::default()).unwrap();
    toy::save(&store, &namespace(1), "").unwrap();
    let newest = toy::save(&store, &namespace(2), "").unwrap();
    let get = async { objects.get(&Path::from(root_path(newest))).await.unwrap().bytes().await.unwrap() };
    let bytes = futures::executor::block_on(get);
    let mut last = RootEntry::new(TimeId(u64::MAX), store.repository(), WriteId([7; 16]));
    last.is_synced = true;
    last.previous = Some(PreviousEntry { number: newest, digest: digest(&bytes) });
    last.state = store.entry(newest).unwrap().state;
    let path = Path::from(root_path(last.number));
    let put = objects.put(&path, last.encode().into());
    futures::executor::block_on(put).unwrap();
    let reopened = Store::open_in(Backend::remote(objects, "full://"), StoreOptions::default()).unwrap();
    assert_eq!(reopened.head().number, TimeId(u64::MAX));
    reopened
}

fn is_told<T: std::fmt::Debug>(outcome: Result<T, StoreError>) {
    let error = outcome.unwrap_err();
    assert!(
        matches!(&error, StoreError::ReadOnly { reason, .. } if reason.contains("last number is spent")),
        "{error}"
    );
}

#[test]
fn it_is_read_and_refreshed() {
    let store = full();
    store.refresh().unwrap();
    assert_eq!(toy::load(&store, TimeId(1)).unwrap(), namespace(1));
    assert_eq!(toy::load(&store, TimeId(2)).unwrap(), namespace(2));
    assert!(store.verify(true).unwrap().is_clean());
}

#[test]
fn a_save_is_refused() {
    is_told(toy::save(&full(), &namespace(3), ""));
}

#[test]
fn a_lease_is_refused() {
    is_told(full().take_lease(TimeId(1), Duration::from_secs(60)));
    is_told(full().release_lease([1; 16]));
}

#[test]
fn a_sweep_is_refused() {
    let retention = Retention { keep_last: Some(1), ..Retention::default() };
    is_told(full().sweep(&SweepRequest { retention, ..SweepRequest::default() }));
}

#[test]
fn a_transfer_to_it_is_refused() {
    let source = Store::create(Place::Memory, StoreOptions::default()).unwrap();
    toy::save(&source, &namespace(9), "").unwrap();
    let refs = vec![chipmink_store::RefSpec::parse("main:other").unwrap()];
    let options = TransferOptions { refs, ..TransferOptions::default() };
    is_told(source.transfer(&full(), &options, &mut |_| true));
}
