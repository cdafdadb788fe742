//! [`RemoteFailure`]: what a failure of a bucket means, and what to look at.

use super::guard::About;
use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};
use std::io;

/// What a failure means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FailureKind {
    /// There are no credentials, or nobody knows them.
    Credentials,
    /// The credentials do not allow it.
    Denied,
    /// There is no such bucket.
    NoBucket,
    /// The bucket is in another region.
    Region,
    /// The clocks differ.
    Clock,
    /// There is no connection.
    Unreachable,
    /// The other side is not who it should be.
    Tls,
    /// There was no answer in time.
    Timeout,
    /// The service does not know such requests.
    Unsupported,
    /// The service has trouble of its own.
    Service,
    /// The object is not there, or there already.
    Object,
    /// None of these.
    Other,
}

/// A failure of a bucket: what happened, and what to look at. It holds nothing secret.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}; {advice}")]
pub struct RemoteFailure {
    /// What it means.
    pub kind: FailureKind,
    /// What happened.
    pub what: String,
    /// What to look at.
    pub advice: String,
}

impl RemoteFailure {
    /// The failure of a bucket that a client's error holds.
    pub fn of(error: &Error) -> Option<&Self> {
        causes(error).find_map(|cause| cause.downcast_ref())
    }
}

/// Longest text of a server that is shown, in characters.
const TEXT_MAX: usize = 300;

/// Shortest secret that is looked for, in bytes.
const SECRET_MIN: usize = 4;

/// Shows text without secrets, and not too much of it.
pub(super) fn blank(text: &str, secrets: &[String]) -> String {
    let mut text = text.to_owned();
    // Shorter ones are no secrets, and parts of words.
    for secret in secrets.iter().filter(|secret| secret.len() >= SECRET_MIN) {
        text = text.replace(secret.as_str(), "***");
    }
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn causes(error: &Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    let first: &(dyn std::error::Error + 'static) = error;
    let mut next = Some(first);
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// What a server answered.
#[derive(Debug, Default)]
struct Answer {
    status: Option<u16>,
    code: String,
    message: String,
    is_redirect: bool,
}

fn element<'a>(text: &'a str, name: &str) -> &'a str {
    let begin = format!("<{name}>");
    let inner = text.split_once(&begin).and_then(|(_, rest)| rest.split_once("</"));
    inner.map_or("", |(inner, _)| inner.trim())
}

impl Answer {
    fn of(error: &Error) -> Self {
        // The client keeps what the server said as text only.
        let text = error.to_string();
        let status = text.split_once("status code: ").and_then(|(_, rest)| rest.get(..3)?.parse().ok());
        Answer {
            status,
            code: element(&text, "Code").to_owned(),
            message: element(&text, "Message").to_owned(),
            is_redirect: text.contains("redirect without LOCATION"),
        }
    }

    fn shown(&self, secrets: &[String]) -> String {
        let status = self.status.map(|status| status.to_string()).unwrap_or_default();
        let parts: Vec<&str> = [status.as_str(), &self.code, &self.message]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect();
        match parts.is_empty() {
            true => String::new(),
            false => format!(" ({})", blank(&parts.join(" "), secrets)),
        }
    }
}

/// A client's error in plain words, of the same variant as far as callers tell them apart.
pub(super) fn explain(about: &About, error: Error) -> Error {
    if RemoteFailure::of(&error).is_some() {
        return error;
    }
    let answer = Answer::of(&error);
    let failure = match &error {
        _ if about.asks_metadata && asked_metadata(&error) => no_credentials(about),
        Error::NotFound { .. } if !is_no_bucket(&answer.code) => object(about, "there is no such object"),
        Error::AlreadyExists { .. } => object(about, "there is such an object already"),
        Error::Precondition { .. } | Error::NotModified { .. } => object(about, "the object is another one"),
        Error::NotSupported { .. } | Error::NotImplemented { .. } => RemoteFailure {
            kind: FailureKind::Unsupported,
            what: blank(&error.to_string(), &about.secrets),
            advice: format!("{} cannot hold a repository that is written to", about.endpoint),
        },
        _ => failure(about, &error, &answer),
    };
    let is_object = failure.kind == FailureKind::Object;
    let source = Box::new(failure);
    match error {
        Error::NotFound { path, .. } if is_object => Error::NotFound { path, source },
        Error::AlreadyExists { path, .. } => Error::AlreadyExists { path, source },
        Error::Precondition { path, .. } => Error::Precondition { path, source },
        Error::NotModified { path, .. } => Error::NotModified { path, source },
        Error::PermissionDenied { path, .. } => Error::PermissionDenied { path, source },
        Error::Unauthenticated { path, .. } => Error::Unauthenticated { path, source },
        _ => Error::Generic { store: about.kind.scheme(), source },
    }
}

/// Whether it was the machine's metadata service that failed: AWS's and Azure's have this address, Google's this name.
fn asked_metadata(error: &Error) -> bool {
    let text = error.to_string();
    ["/latest/api/token", "/latest/meta-data", "169.254.169.254", "metadata.google.internal"]
        .iter()
        .any(|part| text.contains(part))
}

fn object(about: &About, what: &str) -> RemoteFailure {
    let what = format!("{what} in {}", about.place);
    RemoteFailure {
        kind: FailureKind::Object,
        what,
        advice: "somebody else may have written there".to_owned(),
    }
}

fn is_no_bucket(code: &str) -> bool {
    matches!(code, "NoSuchBucket" | "ContainerNotFound" | "ContainerBeingDeleted")
}

fn failure(about: &About, error: &Error, answer: &Answer) -> RemoteFailure {
    let About { place, endpoint, credentials, secrets, .. } = about;
    let made = |kind, what: String, advice: String| RemoteFailure { kind, what, advice };
    let said = answer.shown(secrets);
    let code = answer.code.as_str();
    match (answer.status, code) {
        _ if is_no_bucket(code) => made(
            FailureKind::NoBucket,
            format!("there is no {} {:?} at {endpoint}{said}", about.kind.bucket(), about.bucket),
            "check its name and the endpoint, or create it".to_owned(),
        ),
        (_, "RequestTimeTooSkewed" | "RequestExpired") => made(
            FailureKind::Clock,
            format!("{endpoint} finds the clock of this machine too far off{said}"),
            "set the clock".to_owned(),
        ),
        (Some(301 | 302 | 307 | 308), _)
        | (
            _,
            "AuthorizationHeaderMalformed"
            | "PermanentRedirect"
            | "IllegalLocationConstraintException"
            | "IncorrectEndpoint",
        ) => region(about, &said),
        _ if answer.is_redirect => region(about, &said),
        (Some(401), _)
        | (
            _,
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "InvalidToken"
            | "ExpiredToken"
            | "TokenRefreshRequired"
            | "AuthFailure"
            | "AuthenticationFailed"
            | "InvalidAuthenticationInfo"
            | "InvalidClientTokenId",
        ) => made(
            FailureKind::Credentials,
            format!("{endpoint} does not accept the credentials{said}"),
            format!("check {credentials}"),
        ),
        (Some(403), _) => made(
            FailureKind::Denied,
            format!("{endpoint} denies access{said}"),
            format!("check that the credentials ({credentials}) may list, read and write {place}"),
        ),
        (Some(501), _) | (_, "NotImplemented") => made(
            FailureKind::Unsupported,
            format!("{endpoint} does not know such requests{said}"),
            "use a service that knows conditional writes (If-None-Match)".to_owned(),
        ),
        (Some(429 | 500..), _) | (_, "SlowDown" | "InternalError") => {
            made(FailureKind::Service, format!("{endpoint} failed{said}"), "try again later".to_owned())
        }
        (Some(_), _) => made(
            FailureKind::Other,
            format!("{endpoint} refused the request{said}"),
            format!("check the endpoint and the options of {place}"),
        ),
        (None, _) => transport(about, error),
    }
}

fn region(about: &About, said: &str) -> RemoteFailure {
    RemoteFailure {
        kind: FailureKind::Region,
        what: format!(
            "the bucket {:?} is in another region than {} looks in{said}",
            about.bucket, about.endpoint
        ),
        advice: "pass region= (or set AWS_REGION) as the bucket's settings say".to_owned(),
    }
}

/// A failure without an answer.
fn transport(about: &About, error: &Error) -> RemoteFailure {
    let texts: Vec<String> = causes(error).map(ToString::to_string).collect();
    let kind = causes(error).find_map(|cause| cause.downcast_ref::<HttpError>()).map(HttpError::kind);
    let is_refused = causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    let detail = blank(texts.last().map_or("", String::as_str), &about.secrets);
    let has = |words: &[&str]| {
        texts.iter().any(|text| words.iter().any(|word| text.to_ascii_lowercase().contains(word)))
    };
    if !is_refused
        && has(&["certificate", "tls handshake", "unknownissuer", "corrupt message", "handshakefailure"])
    {
        return RemoteFailure {
            kind: FailureKind::Tls,
            what: format!("{} cannot prove who it is ({detail})", about.endpoint),
            advice:
                "check the endpoint; if its certificate is signed by an authority of your own, pass ca_file="
                    .to_owned(),
        };
    }
    match kind {
        Some(HttpErrorKind::Timeout) => no_answer(about),
        Some(HttpErrorKind::Connect) => RemoteFailure {
            kind: FailureKind::Unreachable,
            what: format!("there is no connection to {} ({detail})", about.endpoint),
            advice: "check the endpoint, the network and the proxy settings".to_owned(),
        },
        Some(HttpErrorKind::Request | HttpErrorKind::Interrupted) => RemoteFailure {
            kind: FailureKind::Unreachable,
            what: format!("the connection to {} broke ({detail})", about.endpoint),
            advice: "check the network, and try again".to_owned(),
        },
        _ => RemoteFailure {
            kind: FailureKind::Other,
            what: format!("{} could not be used ({detail})", about.endpoint),
            advice: format!("check the endpoint and the options of {}", about.place),
        },
    }
}

/// There was no answer in time.
pub(super) fn no_answer(about: &About) -> RemoteFailure {
    RemoteFailure {
        kind: FailureKind::Timeout,
        what: format!("{} did not answer in time", about.endpoint),
        advice: "check the endpoint, the network and the proxy settings".to_owned(),
    }
}

/// Nobody gave credentials, and the machine has none to lend.
pub(super) fn no_credentials(about: &About) -> RemoteFailure {
    RemoteFailure {
        kind: FailureKind::Credentials,
        what: format!("there are no credentials for {}", about.place),
        advice:
            "pass them as options, or set them in the environment or a profile; a public bucket is read with \
                 anonymous=True"
                .to_owned(),
    }
}
