use super::failure::explain;
use super::*;
use crate::place::Place;
use std::collections::HashMap;

const SECRET: &str = "wJalrXUtnFEMI-K7MDENG";

fn parse(url: &str) -> RemotePlace {
    match Place::parse(url).unwrap() {
        Place::Remote(place) => place,
        other => panic!("{other:?}"),
    }
}

fn client(place: &RemotePlace, variables: &[(&str, &str)]) -> Result<Client, String> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    let environment = |name: &str| variables.get(name).map(|value| (*value).to_owned());
    match place.kind() {
        RemoteKind::S3 => s3::client(place, &environment),
        RemoteKind::Gcs => gcs::client(place, &environment),
        RemoteKind::Azure => azure::client(place, &environment),
    }
}

#[test]
fn urls_name_a_bucket_a_prefix_and_options() {
    let place =
        parse("S3://bucket/a%20b//c/?region=eu-west-1&endpoint=http%3A%2F%2Flocalhost:9000&path_style=true");
    assert_eq!((place.kind(), place.bucket(), place.prefix()), (RemoteKind::S3, "bucket", "a b/c"));
    assert_eq!(place.to_string(), "s3://bucket/a b/c");
    assert_eq!(parse(&place.url()), place);
    assert_eq!(parse("gs://bucket").prefix(), "");
    assert_eq!(parse("az://container/x").kind(), RemoteKind::Azure);
    let given = place.with_options([("region", "us-west-2")]).unwrap();
    assert!(given.url().contains("region=us%2Dwest%2D2"), "a keyword counts for more than the URL");
}

#[test]
fn what_is_wrong_in_a_url_is_said_without_its_secrets() {
    for (url, reason) in [
        (format!("s3://KEY:{SECRET}@bucket/x"), "no @"),
        (format!("s3://bucket/x?secret_access_key={SECRET}&endpiont=y"), "endpoint"),
        (format!("s3://bucket/x?account_key={SECRET}"), "no option"),
        (format!("s3:///x?secret_access_key={SECRET}"), "no bucket"),
        (format!("s3://bucket/../x?secret_access_key={SECRET}"), "prefix"),
        (format!("s3://bucket/%ff?secret_access_key={SECRET}"), "percent"),
        (format!("s3://bucket/x?secret_access_key={SECRET}&path_style=maybe"), "true or false"),
    ] {
        let error = Place::parse(&url).unwrap_err();
        for text in [error.to_string(), format!("{error:?}")] {
            assert!(text.contains(reason) && !text.contains(SECRET), "{text}");
        }
    }
    let error = Place::parse("folder").unwrap().with_options([("region", "x")]).unwrap_err();
    assert!(error.to_string().contains("buckets"), "{error}");
}

#[test]
fn no_secret_is_shown() {
    let place = parse("s3://bucket/x?endpoint=http://127.0.0.1:1&access_key_id=ID12345")
        .with_options([("secret_access_key", SECRET), ("session_token", "tokentoken")])
        .unwrap();
    let objects = connect_in(&place, &|_| None).unwrap();
    for text in
        [format!("{place:?}"), place.to_string(), place.url(), format!("{objects:?}"), objects.to_string()]
    {
        assert!(
            !text.contains(SECRET) && !text.contains("tokentoken") && !text.contains("ID12345"),
            "{text}"
        );
    }
    assert!(format!("{place:?}").contains("***"));
}

#[test]
fn keys_are_those_given_then_of_the_environment_then_of_a_profile() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(".aws")).unwrap();
    std::fs::write(
        folder.path().join(".aws/credentials"),
        "# comment\n[default]\naws_access_key_id = A\naws_secret_access_key = B\n[work]\naws_access_key_id=C\naws_secret_access_key=D\n[half]\naws_access_key_id=C\n",
    )
    .unwrap();
    std::fs::write(
        folder.path().join(".aws/config"),
        "[default]\nregion = eu-north-1\ns3 =\n  region = nested\n[profile work]\nregion = ap-south-1\nendpoint_url = http://work:1\n[profile sso]\nsso_session = me\n",
    )
    .unwrap();
    let home = folder.path().to_str().unwrap();
    let keys = [("HOME", home), ("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "F")];
    let of = |url: &str, variables: &[(&str, &str)]| {
        client(&parse(url), variables)
            .map(|client| (client.endpoint, client.credentials, client.secrets.join(" ")))
    };
    let (endpoint, source, secrets) = of("s3://bucket", &[("HOME", home)]).unwrap();
    assert_eq!((endpoint.as_str(), secrets.as_str()), ("S3 in eu-north-1", "B"));
    assert!(source.contains("profile"));
    let (_, source, secrets) = of("s3://bucket", &keys).unwrap();
    assert!(source.contains("AWS_ACCESS_KEY_ID") && secrets == "F", "{source}");
    let (endpoint, _, secrets) = of("s3://bucket?profile=work", &keys).unwrap();
    assert_eq!((endpoint.as_str(), secrets.as_str()), ("http://work:1", "D"));
    let (_, source, secrets) = of("s3://bucket?access_key_id=G&secret_access_key=H", &keys).unwrap();
    assert!(source.contains("options") && secrets.contains('H'), "{source}");
    let (_, source, _) = of("s3://bucket?anonymous=true", &keys).unwrap();
    assert!(source.contains("anonymous"));
    let (_, source, _) = of("s3://bucket", &[("AWS_REGION", "eu-west-1")]).unwrap();
    assert!(source.contains("metadata"), "{source}");
    let error = of("s3://bucket", &[("AWS_EC2_METADATA_DISABLED", "true")]).unwrap_err();
    assert!(error.contains("no credentials"), "{error}");
    for (url, reason) in [
        ("s3://bucket?profile=none", "no profile \"none\""),
        ("s3://bucket?profile=half", "lack the secret key"),
        ("s3://bucket?access_key_id=G", "lack the secret key"),
        ("s3://bucket?profile=sso", "sso_session"),
        ("s3://bucket?endpoint=localhost:9000", "endpoint"),
        ("s3://bucket?endpoint=http://user:pass@host", "user"),
        ("s3://bucket?timeout=soon", "timeout"),
        ("s3://bucket?ca_file=/no/such/file", "ca_file"),
    ] {
        let error = of(url, &[("HOME", home)]).unwrap_err();
        assert!(error.contains(reason) && !error.contains("pass"), "{url}: {error}");
    }
}

#[test]
fn clients_of_other_services_say_what_they_lack() {
    let error = client(&parse("az://container"), &[]).err().unwrap();
    assert!(error.contains("account_name"), "{error}");
    let key = "c2VjcmV0IGtleSBvZiB0aGUgYWNjb3VudA==";
    let made =
        client(&parse("az://container?account_name=me"), &[("AZURE_STORAGE_ACCOUNT_KEY", key)]).unwrap();
    assert!(made.secrets.contains(&key.to_owned()) && made.credentials.contains("account_key"));
    let error = client(&parse("gs://bucket?service_account=/no/such/file"), &[]).err().unwrap();
    assert!(error.contains("service_account"), "{error}");
    let made = client(&parse("gs://bucket?anonymous=true&endpoint=http://localhost:1"), &[]).unwrap();
    assert_eq!(made.endpoint, "http://localhost:1");
}

/// What an error of the client turns into.
fn explained(text: &str) -> RemoteFailure {
    let place = parse("s3://bucket/x");
    let about =
        About::new(&place, "S3 in eu-west-1".into(), "those of the profile".into(), vec![SECRET.into()]);
    let error = object_store::Error::Generic { store: "S3", source: text.into() };
    RemoteFailure::of(&explain(&about, error)).unwrap().clone()
}

#[test]
fn answers_are_told_by_what_to_look_at() {
    let status = |status: &str, code: &str| {
        explained(&format!(
            "Server returned non-2xx status code: {status}: <Error><Code>{code}</Code><Message>about {SECRET}</Message></Error>"
        ))
    };
    for (answer, kind, advice) in [
        (status("403 Forbidden", "InvalidAccessKeyId"), FailureKind::Credentials, "profile"),
        (status("403 Forbidden", "SignatureDoesNotMatch"), FailureKind::Credentials, "profile"),
        (status("401 Unauthorized", "AuthenticationFailed"), FailureKind::Credentials, "profile"),
        (status("403 Forbidden", "AccessDenied"), FailureKind::Denied, "list, read and write"),
        (status("403 Forbidden", "RequestTimeTooSkewed"), FailureKind::Clock, "clock"),
        (status("404 Not Found", "NoSuchBucket"), FailureKind::NoBucket, "create it"),
        (status("404 Not Found", "ContainerNotFound"), FailureKind::NoBucket, "create it"),
        (status("301 Moved", "PermanentRedirect"), FailureKind::Region, "region="),
        (status("400 Bad Request", "AuthorizationHeaderMalformed"), FailureKind::Region, "region="),
        (status("501 Not Implemented", "NotImplemented"), FailureKind::Unsupported, "If-None-Match"),
        (status("503 Slow Down", "SlowDown"), FailureKind::Service, "later"),
        (status("400 Bad Request", "InvalidArgument"), FailureKind::Other, "options"),
    ] {
        assert_eq!(answer.kind, kind, "{answer}");
        let text = answer.to_string();
        assert!(text.contains(advice) && text.contains("about ***") && !text.contains(SECRET), "{text}");
    }
    let bare = explained(
        "Received redirect without LOCATION, this normally indicates an incorrectly configured region",
    );
    assert_eq!(bare.kind, FailureKind::Region);
    let swamped = explained(&format!(
        "Server returned non-2xx status code: 400: <Message>{}</Message>",
        "x".repeat(5000)
    ));
    assert!(swamped.to_string().len() < 600);
}
