//! [`UnrulyStore`]: an object store that answers wrongly, late or not at all.

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::fmt;
use std::sync::{Arc, Mutex};

/// What an unruly store does to a create.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Misdeed {
    /// Does what it should, this once.
    Behaves,
    /// Stores the object and says that it failed.
    StoresAndFails,
    /// Stores nothing and says that it failed.
    Fails,
    /// Replaces what is there: conditional writes do not work.
    Replaces,
    /// Stores nothing, fails, and refuses every create and read from then on.
    FailsAndGoesDeaf,
}

type Work = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Orders {
    misdeeds: Vec<Misdeed>,
    is_deaf: bool,
    /// What is done while the next request for a root entry waits for its answer.
    meanwhile: Option<Work>,
}

impl fmt::Debug for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Orders").field("misdeeds", &self.misdeeds).field("is_deaf", &self.is_deaf).finish()
    }
}

/// An object store that misbehaves on order; clones are one store.
#[derive(Clone, Debug)]
pub struct UnrulyStore {
    store: Arc<dyn ObjectStore>,
    orders: Arc<Mutex<Orders>>,
    always: Option<Misdeed>,
    lists_backwards: bool,
}

impl fmt::Display for UnrulyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnrulyStore({})", self.store)
    }
}

impl UnrulyStore {
    /// Behaves like `store` until told otherwise.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        UnrulyStore { store, orders: Arc::default(), always: None, lists_backwards: false }
    }

    /// Does the same to every create.
    #[must_use]
    pub fn always(mut self, misdeed: Misdeed) -> Self {
        self.always = Some(misdeed);
        self
    }

    /// Lists names in descending order.
    #[must_use]
    pub fn listing_backwards(mut self) -> Self {
        self.lists_backwards = true;
        self
    }

    fn orders(&self) -> std::sync::MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Does these to the next creates, one each.
    pub fn next(&self, misdeeds: &[Misdeed]) {
        let mut orders = self.orders();
        orders.misdeeds = misdeeds.iter().rev().copied().collect();
        orders.is_deaf = false;
    }

    /// Does this, once and in another thread, after the next creation or read of a root entry was carried out and before it is
    /// answered.
    pub fn meanwhile(&self, work: impl FnOnce() + Send + 'static) {
        self.orders().meanwhile = Some(Box::new(work));
    }

    fn answer_late(&self, location: &Path) {
        let work = if location.as_ref().starts_with("root/") { self.orders().meanwhile.take() } else { None };
        if let Some(work) = work {
            std::thread::spawn(work).join().expect("what is done meanwhile must not fail");
        }
    }

    fn listens(&self) -> Result<()> {
        if self.orders().is_deaf { Err(failure()) } else { Ok(()) }
    }
}

fn failure() -> Error {
    Error::Generic { store: "unruly", source: "the connection was reset".into() }
}

#[async_trait]
impl ObjectStore for UnrulyStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        let misdeed = match options.mode {
            PutMode::Create => self.always.or_else(|| self.orders().misdeeds.pop()),
            _ => None,
        };
        self.listens()?;
        match misdeed {
            None | Some(Misdeed::Behaves) => {
                let put = self.store.put_opts(location, payload, options).await;
                self.answer_late(location);
                put
            }
            Some(Misdeed::StoresAndFails) => {
                self.store.put_opts(location, payload, options).await?;
                Err(failure())
            }
            Some(Misdeed::Fails) => Err(failure()),
            Some(Misdeed::Replaces) => {
                options.mode = PutMode::Overwrite;
                self.store.put_opts(location, payload, options).await
            }
            Some(Misdeed::FailsAndGoesDeaf) => {
                self.orders().is_deaf = true;
                Err(failure())
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.listens()?;
        let only_looks = options.head;
        let found = self.store.get_opts(location, options).await;
        if !only_looks {
            self.answer_late(location);
        }
        found
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let listing = self.store.list(prefix);
        if !self.lists_backwards {
            return listing;
        }
        let all = listing.collect::<Vec<_>>();
        all.map(|mut all| {
            all.reverse();
            futures::stream::iter(all)
        })
        .flatten_stream()
        .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}
