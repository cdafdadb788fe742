//! [`RemotePlace`]: a prefix in a bucket.

use super::cache::CacheFolder;
use super::options::RemoteOptions;
use crate::error::StoreError;
use object_store::ObjectStore;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::fmt;
use std::sync::Arc;

/// What is encoded in the parts of a path: all but what RFC 3986 (section 2.3) reserves for nothing.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'=');

/// What kind of service holds a bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RemoteKind {
    /// S3, or a service that speaks its language.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

impl RemoteKind {
    /// The scheme of its URLs.
    pub const fn scheme(self) -> &'static str {
        match self {
            RemoteKind::S3 => "s3",
            RemoteKind::Gcs => "gs",
            RemoteKind::Azure => "az",
        }
    }

    /// What it calls a bucket.
    pub(crate) const fn bucket(self) -> &'static str {
        match self {
            RemoteKind::S3 | RemoteKind::Gcs => "bucket",
            RemoteKind::Azure => "container",
        }
    }

    pub(crate) fn of_scheme(scheme: &str) -> Option<Self> {
        match scheme {
            "s3" => Some(RemoteKind::S3),
            "gs" => Some(RemoteKind::Gcs),
            "az" => Some(RemoteKind::Azure),
            _ => None,
        }
    }
}

/// A prefix in a bucket (Azure: in a container), and how it is reached. Shown as a URL without options.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemotePlace {
    kind: RemoteKind,
    bucket: String,
    prefix: String,
    options: RemoteOptions,
}

impl RemotePlace {
    /// Understands what stands behind `scheme://`: `bucket/prefix?option=value&…`, percent-encoded where necessary.
    pub(crate) fn parse(kind: RemoteKind, rest: &str) -> Result<Self, StoreError> {
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        // What stands before an @ may be somebody's key.
        let shown = path.rsplit_once('@').map_or(path, |(_, shown)| shown);
        let wrong =
            |reason: String| StoreError::Place { place: format!("{}://{shown}", kind.scheme()), reason };
        if bucket.contains(['@', ':']) {
            return Err(wrong(
                "a bucket's name has no @ or :; give keys as options or by the environment".to_owned(),
            ));
        }
        if bucket.is_empty() {
            return Err(wrong(format!("it names no bucket, as in {}://bucket/prefix", kind.scheme())));
        }
        let decode = |text: &str| percent_decode_str(text).decode_utf8().map(|text| text.into_owned());
        let not_text = |_| wrong("its percent signs are no encoding of UTF-8".to_owned());
        let mut parts = Vec::new();
        for part in prefix.split('/').filter(|part| !part.is_empty()) {
            let part = decode(part).map_err(not_text)?;
            if part == "." || part == ".." || part.contains(['#', '/']) {
                return Err(wrong(format!(
                    "its prefix has the part {part:?}, which not every bucket can hold"
                )));
            }
            parts.push(part);
        }
        let mut options = RemoteOptions::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value).map_err(not_text)?;
            options.set(kind, name, &value).map_err(wrong)?;
        }
        Ok(RemotePlace { kind, bucket: bucket.to_owned(), prefix: parts.join("/"), options })
    }

    /// Takes options, which count for more than those of the URL.
    ///
    /// # Errors
    /// When the kind of place has no such option, or that value means nothing.
    pub fn with_options<'a>(
        mut self,
        options: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, StoreError> {
        for (name, value) in options {
            self.options
                .set(self.kind, name, value)
                .map_err(|reason| StoreError::Place { place: self.to_string(), reason })?;
        }
        Ok(self)
    }

    /// What kind of service it is.
    pub fn kind(&self) -> RemoteKind {
        self.kind
    }

    /// The bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// What the names of all objects begin with, without slashes at its ends.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The object store of this place. Nothing is asked of it yet.
    ///
    /// # Errors
    /// When the options, the environment or a profile do not say how to reach it.
    pub fn connect(&self) -> Result<Arc<dyn ObjectStore>, StoreError> {
        super::connect(self)
    }

    pub(crate) fn cache(&self) -> Result<Option<Arc<CacheFolder>>, StoreError> {
        super::cache(self)
    }

    /// A URL by which it can be opened again: with its options, but for what is secret.
    pub fn url(&self) -> String {
        let options: Vec<String> = self
            .options
            .shown()
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
            .collect();
        let parts: Vec<String> =
            self.prefix.split('/').map(|part| utf8_percent_encode(part, PLAIN).to_string()).collect();
        let mut url = format!("{}://{}", self.kind.scheme(), self.bucket);
        if !self.prefix.is_empty() {
            url.extend(["/", &parts.join("/")]);
        }
        if !options.is_empty() {
            url.extend(["?", &options.join("&")]);
        }
        url
    }

    pub(crate) fn options(&self) -> &RemoteOptions {
        &self.options
    }
}

impl fmt::Display for RemotePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.kind.scheme(), self.bucket)?;
        match self.prefix.as_str() {
            "" => Ok(()),
            prefix => write!(f, "/{prefix}"),
        }
    }
}
