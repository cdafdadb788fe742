//! [`Place`]: where a repository lies.

use crate::error::StoreError;
use crate::remote::{RemoteKind, RemotePlace};
use std::fmt;
use std::path::PathBuf;

/// Where a repository lies.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Place {
    /// A directory of a local file system.
    Local(PathBuf),
    /// The memory of this process: a repository of its own each time, which ends with the last handle of it.
    Memory,
    /// Shared memory of this name: it outlives the processes that use it, until the machine is shut down.
    Shared(String),
    /// A prefix in a bucket.
    Remote(RemotePlace),
}

impl Place {
    /// Understands a path, `memory://`, `shm://NAME`, or a URL with the scheme `file`, `s3`, `gs` or `az`; the last three with
    /// options, as in `s3://bucket/prefix?region=eu-west-1`.
    ///
    /// # Errors
    /// When the text is empty, a URL with another scheme, or one that does not say what it should. Options are not shown.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let unsupported =
            |reason: &str| StoreError::Place { place: text.to_owned(), reason: reason.to_owned() };
        if text.is_empty() {
            return Err(unsupported("it is empty; give a folder"));
        }
        let Some((scheme, rest)) = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) else {
            return Ok(Place::Local(PathBuf::from(text)));
        };
        let scheme = scheme.to_ascii_lowercase();
        if let Some(kind) = RemoteKind::of_scheme(&scheme) {
            return RemotePlace::parse(kind, rest).map(Place::Remote);
        }
        match scheme.as_str() {
            "file" => {
                let path =
                    rest.strip_prefix("localhost").filter(|path| path.starts_with('/')).unwrap_or(rest);
                if !path.starts_with('/') {
                    return Err(unsupported(
                        "a file URL needs an absolute path, as in file:///home/me/checkpoints",
                    ));
                }
                decode_percent(path)
                    .map(Place::Local)
                    .ok_or_else(|| unsupported("its percent signs are no encoding"))
            }
            "memory" if rest.is_empty() => Ok(Place::Memory),
            "memory" => Err(unsupported("a repository in memory has no name; it is open where it was made")),
            "shm" if rest.is_empty() || rest.contains('/') => {
                Err(unsupported("shared memory needs a name without a slash, as in shm://run7"))
            }
            "shm" => Ok(Place::Shared(rest.to_owned())),
            other => Err(unsupported(&format!(
                "there is no scheme {other:?}; give a folder, or a URL that begins with file://, memory://, shm://, s3://, gs:// or az://"
            ))),
        }
    }

    /// Takes options, which count for more than those of the URL.
    ///
    /// # Errors
    /// When a place of this kind has no such option, or the value means nothing. It is not shown.
    pub fn with_options<'a>(
        self,
        options: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, StoreError> {
        let mut options = options.into_iter().peekable();
        match (self, options.peek()) {
            (place, None) => Ok(place),
            (Place::Remote(place), _) => place.with_options(options).map(Place::Remote),
            (place, Some((name, _))) => Err(StoreError::Place {
                place: place.to_string(),
                reason: format!("the option {name} is for buckets"),
            }),
        }
    }
}

/// Without options: a place is shown in errors and logs.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Local(path) => path.display().fmt(f),
            Place::Memory => f.write_str("memory://"),
            Place::Shared(name) => write!(f, "shm://{name}"),
            Place::Remote(place) => place.fmt(f),
        }
    }
}

/// RFC 3986, section 3.1. One letter is taken for a drive, not a scheme.
fn is_scheme(text: &str) -> bool {
    text.len() > 1
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

fn decode_percent(path: &str) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_file_urls_are_places() {
        let local = |path: &str| Place::Local(PathBuf::from(path));
        assert_eq!(Place::parse("checkpoints").unwrap(), local("checkpoints"));
        assert_eq!(Place::parse("/a b/c").unwrap(), local("/a b/c"));
        assert_eq!(Place::parse("file:///a%20b/c").unwrap(), local("/a b/c"));
        assert_eq!(Place::parse("FILE://localhost/a").unwrap(), local("/a"));
        assert_eq!(Place::parse("a:b").unwrap(), local("a:b"));
        assert_eq!(Place::parse("memory://").unwrap(), Place::Memory);
        assert_eq!(Place::parse("shm://run7").unwrap(), Place::Shared("run7".to_owned()));
    }

    #[test]
    fn other_places_are_refused_by_name() {
        for wrong in [
            "",
            "ftp://bucket/prefix",
            "memory://3",
            "shm://",
            "shm://a/b",
            "file://host/a",
            "file://a",
            "file:///%zz",
            "file:///%4",
        ] {
            let error = Place::parse(wrong).unwrap_err();
            assert!(matches!(&error, StoreError::Place { place, .. } if place == wrong), "{error}");
        }
        assert!(Place::parse("ftp://bucket").unwrap_err().to_string().contains("s3://"));
    }
}
