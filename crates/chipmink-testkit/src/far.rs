//! [`FarStore`]: an object store at the end of a wire.

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One direction of a wire: when it is free again.
#[derive(Debug)]
struct Way(Mutex<Instant>);

impl Way {
    /// When so many bytes have passed that are sent now.
    fn pass(&self, byte_len: u64, bytes_per_second: f64) -> Instant {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *free = (*free).max(Instant::now()) + Duration::from_secs_f64(byte_len as f64 / bytes_per_second);
        *free
    }
}

#[derive(Debug)]
struct Wire {
    latency: Duration,
    bytes_per_second: f64,
    there: Way,
    back: Way,
}

impl Wire {
    async fn send(&self, byte_len: usize) {
        let arrives = self.there.pass(byte_len as u64, self.bytes_per_second);
        tokio::time::sleep_until((arrives + self.latency).into()).await;
    }

    async fn receive(&self, byte_len: u64) {
        tokio::time::sleep_until(self.back.pass(byte_len, self.bytes_per_second).into()).await;
    }
}

/// An object store each request to which takes a while, and whose bytes share a wire that carries so many in a second, in each
/// direction. Clones share it. It needs a tokio runtime with a clock.
#[derive(Clone, Debug)]
pub struct FarStore {
    store: Arc<dyn ObjectStore>,
    wire: Arc<Wire>,
}

impl FarStore {
    /// Puts a store so far away.
    pub fn new(store: Arc<dyn ObjectStore>, latency: Duration, bytes_per_second: f64) -> Self {
        let way = || Way(Mutex::new(Instant::now()));
        FarStore { store, wire: Arc::new(Wire { latency, bytes_per_second, there: way(), back: way() }) }
    }
}

impl fmt::Display for FarStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FarStore({})", self.store)
    }
}

#[derive(Debug)]
struct FarUpload(Box<dyn MultipartUpload>, Arc<Wire>);

#[async_trait]
impl MultipartUpload for FarUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (wire, byte_len) = (Arc::clone(&self.1), data.content_length());
        let put = self.0.put_part(data);
        Box::pin(async move {
            wire.send(byte_len).await;
            put.await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.1.send(0).await;
        self.0.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.1.send(0).await;
        self.0.abort().await
    }
}

#[async_trait]
impl ObjectStore for FarStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.wire.send(payload.content_length()).await;
        self.store.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.wire.send(0).await;
        let upload = self.store.put_multipart_opts(location, options).await?;
        Ok(Box::new(FarUpload(upload, Arc::clone(&self.wire))))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.wire.send(0).await;
        let is_head = options.head;
        let found = self.store.get_opts(location, options).await?;
        if !is_head {
            self.wire.receive(found.range.end - found.range.start).await;
        }
        Ok(found)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (wire, removed) = (Arc::clone(&self.wire), self.store.delete_stream(locations));
        stream::once(async move { wire.send(0).await }).flat_map(|()| stream::empty()).chain(removed).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (wire, listed) = (Arc::clone(&self.wire), self.store.list(prefix));
        stream::once(async move { wire.send(0).await }).flat_map(|()| stream::empty()).chain(listed).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.wire.send(0).await;
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.wire.send(0).await;
        self.store.copy_opts(from, to, options).await
    }
}
