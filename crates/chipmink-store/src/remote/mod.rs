//! Buckets: S3 and what speaks its language, Google Cloud Storage, Azure Blob Storage.
//!
//! ```text
//!  s3://bucket/prefix?region=…  ──► RemotePlace ──► client of object_store ──► Guard ──► Backend::remote
//!     + keywords, environment, profile                (signs, retries)        (deadline, plain failures)
//!                                                                                    └─ CachedObjects, if one is wished for
//! ```
//!
//! Invariants:
//! 1. A secret is in no error, no label and no `Debug`: options are shown without their values where these are secret,
//!    places without their options, and what a server answers is cut down to its code and message, secrets blanked.
//! 2. Until a place has answered once, every request to it fails within [`FIRST_ANSWER`].

mod azure;
mod cache;
mod failure;
mod gcs;
mod guard;
mod options;
mod place;
mod profile;
mod removal;
mod s3;

pub(crate) use cache::{CacheFolder, CachedObjects};
pub use failure::{FailureKind, RemoteFailure};
pub use options::RemoteOptions;
pub use place::{RemoteKind, RemotePlace};

use crate::error::StoreError;
use crate::options::parse_byte_len;
use guard::{About, Guard};
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, Certificate, ClientOptions, ObjectStore, RetryConfig};
use options::RemoteOption;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long it may take until a place answers for the first time: what is misconfigured is told soon.
const FIRST_ANSWER: Duration = Duration::from_secs(8);
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(3);
/// How long one request may take, with its bytes: 8 MiB at 1 Mbit/s take 64 s.
const REQUEST: Duration = Duration::from_secs(90);
/// After this long, a request that failed is not sent again.
const RETRY: Duration = Duration::from_secs(30);
/// How often a request is sent again.
const RETRIES: usize = 4;

/// What a scheme's module makes of a place.
struct Client {
    objects: Arc<dyn ObjectStore>,
    /// Where requests go, as errors show it.
    endpoint: String,
    /// Where the credentials came from, as errors show it.
    credentials: String,
    /// What must be shown nowhere.
    secrets: Vec<String>,
}

/// Where settings that are not given are looked for; tests have another.
type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The object store of a place. Nothing is asked of it yet.
fn connect(place: &RemotePlace) -> Result<Arc<dyn ObjectStore>, StoreError> {
    connect_in(place, &variable)
}

/// The cache of a place, if one is wished for.
fn cache(place: &RemotePlace) -> Result<Option<Arc<CacheFolder>>, StoreError> {
    let folder = cache_folder(place, &variable);
    let folder = folder.map_err(|reason| StoreError::Place { place: place.to_string(), reason })?;
    Ok(folder.map(Arc::new))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn connect_in(place: &RemotePlace, environment: Environment<'_>) -> Result<Arc<dyn ObjectStore>, StoreError> {
    // The client's TLS has no cryptography of its own; another part of the process may have chosen one before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = match place.kind() {
        RemoteKind::S3 => s3::client(place, environment),
        RemoteKind::Gcs => gcs::client(place, environment),
        RemoteKind::Azure => azure::client(place, environment),
    };
    let Client { objects, endpoint, credentials, secrets } =
        client.map_err(|reason| StoreError::Place { place: place.to_string(), reason })?;
    let objects: Arc<dyn ObjectStore> = match place.prefix() {
        "" => objects,
        prefix => Arc::new(PrefixStore::new(objects, prefix)),
    };
    let about = About::new(place, endpoint, credentials, secrets);
    Ok(Arc::new(Guard::new(objects, about)))
}

/// How a client talks: what all schemes share.
fn client_options(
    place: &RemotePlace,
    endpoint: Option<&str>,
    ca_file: Option<String>,
) -> Result<ClientOptions, String> {
    let seconds = place.options().get(RemoteOption::Timeout);
    let request = match seconds.map(str::parse::<f64>) {
        None => REQUEST,
        Some(Ok(seconds)) if seconds > 0.0 && seconds <= 86_400.0 => Duration::from_secs_f64(seconds),
        Some(_) => return Err("timeout is a number of seconds above 0, at most 86400".to_owned()),
    };
    let mut options = ClientOptions::new()
        .with_connect_timeout(CONNECT)
        .with_timeout(request)
        .with_allow_http(endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")));
    if let Some(path) = ca_file {
        let pem =
            std::fs::read(&path).map_err(|error| format!("its ca_file {path:?} cannot be read: {error}"))?;
        let certificates = Certificate::from_pem_bundle(&pem).unwrap_or_default();
        if certificates.is_empty() {
            return Err(format!("its ca_file {path:?} holds no certificate in PEM form"));
        }
        for certificate in certificates {
            options = options.with_root_certificate(certificate);
        }
    }
    Ok(options)
}

fn retries() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(4),
        base: 2.0,
    };
    RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY }
}

/// An endpoint as it is used: a scheme and a host, and nobody's password.
fn checked_endpoint(endpoint: &str) -> Result<String, String> {
    let rest = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
    match rest.map(|rest| rest.split('/').next().unwrap_or_default()) {
        None | Some("") => Err("its endpoint is no URL such as https://storage.example.org:9000".to_owned()),
        Some(host) if host.contains('@') => {
            Err("its endpoint names a user; give keys as options or by the environment".to_owned())
        }
        Some(_) if endpoint.contains(['?', '#']) => {
            Err("its endpoint has a query; leave that out".to_owned())
        }
        Some(_) => Ok(endpoint.trim_end_matches('/').to_owned()),
    }
}

/// Bytes that a cache may take if nothing is said.
const CACHE_LEN: u64 = 10 << 30;

/// The folder that keeps what is read of a place, if one is wished for.
fn cache_folder(place: &RemotePlace, environment: Environment<'_>) -> Result<Option<CacheFolder>, String> {
    let options = place.options();
    let byte_len = match options.get(RemoteOption::CacheSize) {
        None => CACHE_LEN,
        Some(text) => parse_byte_len(text)
            .ok_or_else(|| format!("its cache_size {text:?} is no size such as 500MiB or 10GiB"))?,
    };
    let folder = match (options.get(RemoteOption::Cache), options.is_set(RemoteOption::Cache)) {
        (None, _) if options.get(RemoteOption::CacheSize).is_some() => {
            return Err("its cache_size is that of a cache; give cache=true, or a folder for it".to_owned());
        }
        (None, _) | (_, Some(false)) => return Ok(None),
        (_, Some(true)) => {
            let base = environment("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
            let home = || environment("HOME").map(|home| PathBuf::from(home).join(".cache"));
            let base =
                base.or_else(home).ok_or("there is no HOME for its cache; name a folder with cache=")?;
            base.join("chipmink")
        }
        (Some(folder), None) => PathBuf::from(folder),
    };
    let opened = CacheFolder::open(&folder, byte_len);
    opened.map(Some).map_err(|error| format!("its cache in {} cannot be used: {error}", folder.display()))
}

/// Why a client could not be made, without what may be secret.
fn unusable(error: &object_store::Error, secrets: &[String]) -> String {
    format!("its options do not fit together: {}", failure::blank(&error.to_string(), secrets))
}

#[cfg(test)]
mod tests;
