//! A pool, alone and in front of a store, against object_store's own conformance suite.

use super::{PoolObjects, Pressure};
use crate::backend::Backend;
use crate::options::StoreOptions;
use crate::store::Store;
use chipmink_shm::pool::Pool;
use chipmink_types::SharedPool;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload, integration};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A pool of its own, which goes when the test ends.
struct Temporary {
    name: String,
    pool: Arc<Pool>,
}

impl Temporary {
    fn new(byte_len: u64) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("chipmink-store-test-{}-{count}", std::process::id());
        let pool = Arc::new(Pool::create(&name, byte_len, [1; 16]).unwrap());
        Temporary { name, pool }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = Pool::unlink(&self.name);
    }
}

fn objects(temporary: &Temporary, lower: Option<Arc<dyn ObjectStore>>) -> PoolObjects {
    PoolObjects::new(temporary.pool.clone(), lower, Arc::new(Pressure::default()))
}

#[test]
fn it_conforms_to_the_object_store_trait() {
    for has_lower in [false, true] {
        let temporary = Temporary::new(64 << 20);
        let lower: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let store = objects(&temporary, has_lower.then_some(lower));
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
fn one_of_many_creators_wins_also_when_the_name_is_below() {
    let temporary = Temporary::new(1 << 20);
    let lower: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let create = |store: &PoolObjects, who: u8, name: &Path| {
        let payload = PutPayload::from(vec![who; 100]);
        futures::executor::block_on(store.put_opts(name, payload, PutMode::Create.into())).is_ok()
    };
    for round in 0..20 {
        let name = Path::from(format!("root/{round}"));
        let winners: usize = std::thread::scope(|scope| {
            let start = |who: u8| {
                let (lower, name) = (lower.clone(), name.clone());
                let pool = Arc::new(Pool::attach(&temporary.name).unwrap());
                let store = PoolObjects::new(pool, Some(lower), Arc::new(Pressure::default()));
                scope.spawn(move || usize::from(create(&store, who, &name)))
            };
            let threads: Vec<_> = (0..8).map(start).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(winners, 1);
    }
    let name = Path::from("root/below");
    futures::executor::block_on(lower.put(&name, PutPayload::from("x"))).unwrap();
    assert!(!create(&objects(&temporary, Some(lower)), 1, &name));
    assert_eq!(temporary.pool.find("root/below").unwrap(), None);
}

#[test]
fn a_full_pool_says_so_and_keeps_what_it_has() {
    let temporary = Temporary::new(1 << 20);
    let store = objects(&temporary, None);
    let put = |name: &str, byte_len: usize| {
        let payload = PutPayload::from(vec![1; byte_len]);
        futures::executor::block_on(store.put(&Path::from(name), payload))
    };
    put("a", 500_000).unwrap();
    let error = put("b", 500_000).unwrap_err().to_string();
    assert!(error.contains("is full: 500000 bytes more are needed"), "{error}");
    put("c", 1000).unwrap();
    assert!(temporary.pool.find("a").unwrap().is_some());
}

#[test]
fn a_repository_in_a_pool_is_there_for_the_next_who_opens_it() {
    let temporary = Temporary::new(4 << 20);
    let options = StoreOptions::default();
    let store = Store::open_or_create_in(Backend::pool(temporary.pool.clone()), options.clone()).unwrap();
    let pool = Arc::new(Pool::attach(&temporary.name).unwrap());
    let other = Store::open_in(Backend::pool(pool), options).unwrap();
    assert_eq!(store.repository(), other.repository());
    assert!(store.verify(true).unwrap().is_clean());
}
