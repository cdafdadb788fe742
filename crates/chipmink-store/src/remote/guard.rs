//! [`Guard`]: an object store that tells early that it cannot be reached, and always in plain words.

use super::failure::{explain, no_answer, no_credentials};
use super::{FIRST_ANSWER, RemoteKind, RemotePlace};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryFutureExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What errors of a place say of it.
pub(super) struct About {
    pub(super) kind: RemoteKind,
    pub(super) place: String,
    pub(super) bucket: String,
    pub(super) endpoint: String,
    pub(super) credentials: String,
    pub(super) secrets: Vec<String>,
    /// Whether the credentials are asked of a service that may not be there.
    pub(super) asks_metadata: bool,
    /// Whether it has answered at all.
    has_answered: AtomicBool,
}

impl About {
    pub(super) fn new(
        place: &RemotePlace,
        endpoint: String,
        credentials: String,
        secrets: Vec<String>,
    ) -> Self {
        About {
            kind: place.kind(),
            place: place.to_string(),
            bucket: place.bucket().to_owned(),
            asks_metadata: credentials.contains("metadata service"),
            endpoint,
            credentials,
            secrets,
            has_answered: AtomicBool::new(false),
        }
    }

    /// Waits for an answer, the first one not for long.
    async fn answer<T>(&self, asked: impl Future<Output = T>) -> Result<T> {
        if self.has_answered.load(Ordering::Relaxed) {
            return Ok(asked.await);
        }
        let Ok(answer) = tokio::time::timeout(FIRST_ANSWER, asked).await else {
            let failure = match self.asks_metadata {
                true => no_credentials(self),
                false => no_answer(self),
            };
            return Err(Error::Generic { store: self.kind.scheme(), source: Box::new(failure) });
        };
        Ok(answer)
    }

    fn plain<T>(&self, answer: Result<T>) -> Result<T> {
        answer
            .map_err(|error| explain(self, error))
            .inspect(|_| self.has_answered.store(true, Ordering::Relaxed))
    }

    async fn ask<T>(&self, asked: impl Future<Output = Result<T>>) -> Result<T> {
        let answer = self.answer(asked).await?;
        self.plain(answer)
    }
}

/// An object store that gives up soon as long as the place has not answered, and explains every failure.
pub(super) struct Guard {
    objects: Arc<dyn ObjectStore>,
    about: Arc<About>,
}

impl Guard {
    pub(super) fn new(objects: Arc<dyn ObjectStore>, about: About) -> Self {
        Guard { objects, about: Arc::new(about) }
    }

    /// Azure knows no ranges that are counted from the end: there the length is asked for first.
    async fn bounded(&self, location: &Path, mut options: GetOptions) -> Result<GetOptions> {
        if let (RemoteKind::Azure, Some(GetRange::Suffix(wanted))) = (self.about.kind, &options.range) {
            let head = GetOptions { head: true, ..GetOptions::default() };
            let byte_len = self.about.ask(self.objects.get_opts(location, head)).await?.meta.size;
            // Of an empty object no range can be asked for.
            options.range =
                (byte_len > 0).then(|| GetRange::Bounded(byte_len.saturating_sub(*wanted)..byte_len));
        }
        Ok(options)
    }

    fn explained<T: Send + 'static>(
        &self,
        stream: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        let about = Arc::clone(&self.about);
        let next = |(mut stream, about): (BoxStream<'static, Result<T>>, Arc<About>)| async move {
            let item = match about.answer(stream.next()).await {
                Ok(item) => about.plain(item.transpose()).transpose()?,
                // A stream that was given up is not asked again.
                Err(error) => return Some((Err(error), (futures::stream::empty().boxed(), about))),
            };
            Some((item, (stream, about)))
        };
        futures::stream::unfold((stream, about), next).fuse().boxed()
    }
}

// Clients show their keys; what they are for is enough.
impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guard({})", self.about.place)
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.about.place)
    }
}

#[async_trait]
impl ObjectStore for Guard {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.about.ask(self.objects.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.about.ask(self.objects.put_multipart_opts(location, options)).await?;
        Ok(Box::new(GuardedUpload { upload, about: Arc::clone(&self.about) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let options = self.bounded(location, options).await?;
        let mut found = self.about.ask(self.objects.get_opts(location, options)).await?;
        found.payload = match found.payload {
            GetResultPayload::Stream(stream) => GetResultPayload::Stream(self.explained(stream)),
            #[expect(unreachable_patterns, reason = "other features of object_store add variants")]
            other => other,
        };
        Ok(found)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.about.ask(self.objects.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.explained(self.objects.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.explained(self.objects.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.explained(self.objects.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.about.ask(self.objects.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.about.ask(self.objects.copy_opts(from, to, options)).await
    }
}

struct GuardedUpload {
    upload: Box<dyn MultipartUpload>,
    about: Arc<About>,
}

impl fmt::Debug for GuardedUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuardedUpload({})", self.about.place)
    }
}

#[async_trait]
impl MultipartUpload for GuardedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let about = Arc::clone(&self.about);
        self.upload.put_part(data).map_err(move |error| explain(&about, error)).boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.about.ask(self.upload.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.about.ask(self.upload.abort()).await
    }
}
