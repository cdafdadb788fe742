//! [`MeteredStore`]: an object store that counts what is asked of it, and can die at any request.

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug)]
struct Meter {
    requests: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    /// Requests that are still answered.
    left: AtomicU64,
    /// The last round of which a request was answered.
    round: AtomicU64,
}

/// A request, until it is answered.
struct Asked {
    meter: Arc<Meter>,
    /// One more than that of any request that had been answered when it began.
    round: u64,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.meter.round.fetch_max(self.round, Ordering::SeqCst);
    }
}

/// An object store that counts requests and bytes; clones are one store.
#[derive(Clone, Debug)]
pub struct MeteredStore {
    store: Arc<dyn ObjectStore>,
    meter: Arc<Meter>,
}

impl fmt::Display for MeteredStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeteredStore({})", self.store)
    }
}

impl MeteredStore {
    /// Counts what is asked of `store`.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        let zero = || AtomicU64::new(0);
        let meter = Meter {
            requests: zero(),
            bytes_read: zero(),
            bytes_written: zero(),
            left: AtomicU64::new(u64::MAX),
            round: zero(),
        };
        MeteredStore { store, meter: Arc::new(meter) }
    }

    /// Counts from 0 again, and answers so many requests; all later ones fail without an effect.
    pub fn reset(&self, lives: u64) {
        let Meter { requests, bytes_read, bytes_written, left, round } = &*self.meter;
        requests.store(0, Ordering::SeqCst);
        bytes_read.store(0, Ordering::SeqCst);
        bytes_written.store(0, Ordering::SeqCst);
        left.store(lives, Ordering::SeqCst);
        round.store(0, Ordering::SeqCst);
    }

    /// Requests since then, those that failed included.
    pub fn requests(&self) -> u64 {
        self.meter.requests.load(Ordering::SeqCst)
    }

    /// Rounds since then: how many requests, each begun when the one before it was answered, stood behind each other at most. It
    /// means something if answers take longer than it takes to ask.
    pub fn rounds(&self) -> u64 {
        self.meter.round.load(Ordering::SeqCst)
    }

    /// Bytes of objects that were read.
    pub fn bytes_read(&self) -> u64 {
        self.meter.bytes_read.load(Ordering::SeqCst)
    }

    /// Bytes of objects that were written.
    pub fn bytes_written(&self) -> u64 {
        self.meter.bytes_written.load(Ordering::SeqCst)
    }
}

impl Meter {
    fn request(self: &Arc<Self>) -> Result<Asked> {
        let round = self.round.load(Ordering::SeqCst) + 1;
        self.count()?;
        Ok(Asked { meter: Arc::clone(self), round })
    }

    fn count(&self) -> Result<()> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let lives = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| match left {
            u64::MAX => Some(left),
            _ => left.checked_sub(1),
        });
        match lives {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Generic { store: "metered", source: "the connection is gone".into() }),
        }
    }

    fn wrote(&self, byte_len: usize) {
        self.bytes_written.fetch_add(byte_len as u64, Ordering::SeqCst);
    }
}

#[derive(Debug)]
struct MeteredUpload(Box<dyn MultipartUpload>, Arc<Meter>);

#[async_trait]
impl MultipartUpload for MeteredUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let asked = match self.1.request() {
            Ok(asked) => asked,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        self.1.wrote(data.content_length());
        let sent = self.0.put_part(data);
        Box::pin(async move {
            let _asked = asked;
            sent.await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let _asked = self.1.request()?;
        self.0.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.0.abort().await
    }
}

#[async_trait]
impl ObjectStore for MeteredStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let _asked = self.meter.request()?;
        self.meter.wrote(payload.content_length());
        self.store.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let _asked = self.meter.request()?;
        let upload = self.store.put_multipart_opts(location, options).await?;
        Ok(Box::new(MeteredUpload(upload, Arc::clone(&self.meter))))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let _asked = self.meter.request()?;
        let is_head = options.head;
        let found = self.store.get_opts(location, options).await?;
        if !is_head {
            self.meter.bytes_read.fetch_add(found.range.end - found.range.start, Ordering::SeqCst);
        }
        Ok(found)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[std::ops::Range<u64>]) -> Result<Vec<Bytes>> {
        let _asked = self.meter.request()?;
        let found = self.store.get_ranges(location, ranges).await?;
        let byte_len: usize = found.iter().map(Bytes::len).sum();
        self.meter.bytes_read.fetch_add(byte_len as u64, Ordering::SeqCst);
        Ok(found)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let meter = Arc::clone(&self.meter);
        let checked = locations.map(move |location| meter.request().and(location)).boxed();
        self.store.delete_stream(checked)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.meter.request() {
            Ok(asked) => {
                let listed = self.store.list(prefix);
                // It is answered when nobody listens any more.
                futures::stream::unfold((listed, asked), |(mut listed, asked)| async move {
                    listed.next().await.map(|item| (item, (listed, asked)))
                })
                .boxed()
            }
            Err(error) => futures::stream::once(std::future::ready(Err(error))).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let _asked = self.meter.request()?;
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let _asked = self.meter.request()?;
        self.store.copy_opts(from, to, options).await
    }
}
