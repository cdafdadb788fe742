//! [`BulkRemoval`]: an S3 client that removes many objects by one request, from services that know it.
//!
//! 1. A single object is removed by the request that every service knows.
//! 2. Services that refuse the request for many are asked for each, and not asked for many again.
//! 3. What the answer to it holds cannot end the program: it is read in a task of its own.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Objects that S3 removes by one request.
const AT_ONCE: usize = 1000;

/// See the module.
#[derive(Clone)]
pub(super) struct BulkRemoval {
    /// Removes one by one, and does all else.
    objects: Arc<AmazonS3>,
    bulk: Arc<Bulk>,
}

struct Bulk {
    builder: AmazonS3Builder,
    /// Made when it is first needed: most programs never sweep.
    client: OnceLock<Option<AmazonS3>>,
    is_refused: AtomicBool,
}

impl BulkRemoval {
    /// A client as `builder` describes it.
    pub(super) fn build(builder: AmazonS3Builder) -> Result<Self> {
        let objects = Arc::new(builder.clone().with_disable_bulk_delete(true).build()?);
        let bulk = Bulk { builder, client: OnceLock::new(), is_refused: AtomicBool::new(false) };
        Ok(BulkRemoval { objects, bulk: Arc::new(bulk) })
    }

    async fn remove(&self, paths: Vec<Path>) -> Vec<Result<Path>> {
        let told = match paths.len() > 1 && !self.bulk.is_refused.load(Ordering::Relaxed) {
            true => self.bulk.remove(&paths).await,
            false => None,
        };
        if let Some(told) = told {
            return told;
        }
        let is_many = paths.len() > 1;
        let mut singly = self.objects.delete_stream(stream::iter(paths.into_iter().map(Ok)).boxed());
        let mut told = Vec::new();
        while let Some(removed) = singly.next().await {
            let has_failed = removed.is_err();
            told.push(removed);
            if has_failed {
                // If nobody answers, or nothing may be removed, the others need not be waited for.
                return told;
            }
        }
        if is_many {
            self.bulk.is_refused.store(true, Ordering::Relaxed);
        }
        told
    }
}

impl Bulk {
    /// What became of each; `None` if the request was refused as a whole.
    async fn remove(&self, paths: &[Path]) -> Option<Vec<Result<Path>>> {
        let client =
            self.client.get_or_init(|| self.builder.clone().with_disable_bulk_delete(false).build().ok());
        let wanted: Vec<Result<Path>> = paths.iter().cloned().map(Ok).collect();
        let asked = client.as_ref()?.delete_stream(stream::iter(wanted).boxed());
        let told: Vec<Result<Path>> = tokio::spawn(asked.collect()).await.ok()?;
        (told.len() == paths.len() && told.iter().any(Result::is_ok)).then_some(told)
    }
}

// Clients show their keys.
impl fmt::Debug for BulkRemoval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BulkRemoval")
    }
}

impl fmt::Display for BulkRemoval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.objects, f)
    }
}

#[async_trait]
impl ObjectStore for BulkRemoval {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.objects.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.objects.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.objects.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let remove = move |paths: std::result::Result<Vec<Path>, _>| {
            let this = this.clone();
            async move {
                match paths {
                    Ok(paths) => this.remove(paths).await,
                    Err(stream::TryChunksError(_, error)) => vec![Err(error)],
                }
            }
        };
        locations.try_chunks(AT_ONCE).then(remove).flat_map(stream::iter).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}
