//! Clients of S3.

use super::options::RemoteOption::{
    AccessKeyId, Anonymous, CaFile, Endpoint, PathStyle, Profile as ProfileName, Region, SecretAccessKey,
    SessionToken,
};
use super::profile::Profile;
use super::removal::BulkRemoval;
use super::{Client, Environment, RemotePlace, checked_endpoint, client_options, retries, unusable};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use std::sync::Arc;

/// A key, and where it was found.
struct Keys {
    id: String,
    secret: String,
    token: Option<String>,
    source: String,
}

/// Settings of services that lend keys to programs that run on them.
const LENT: [(&str, AmazonS3ConfigKey); 6] = [
    ("AWS_WEB_IDENTITY_TOKEN_FILE", AmazonS3ConfigKey::WebIdentityTokenFile),
    ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
    ("AWS_ROLE_SESSION_NAME", AmazonS3ConfigKey::RoleSessionName),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", AmazonS3ConfigKey::ContainerCredentialsRelativeUri),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", AmazonS3ConfigKey::ContainerCredentialsFullUri),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", AmazonS3ConfigKey::ContainerAuthorizationTokenFile),
];

pub(super) fn client(place: &RemotePlace, environment: Environment<'_>) -> Result<Client, String> {
    let options = place.options();
    let chosen = options.get(ProfileName).map(str::to_owned);
    let name = chosen.clone().or_else(|| environment("AWS_PROFILE"));
    let profile = Profile::read(name.as_deref().unwrap_or("default"), environment);
    if let (Some(name), None) = (&name, &profile) {
        return Err(format!("there is no profile {name:?} in the AWS configuration files"));
    }
    let profile = profile.unwrap_or_default();

    let mut secrets = options.secrets();
    let region = options.get(Region).map(str::to_owned);
    let region = region
        .or_else(|| environment("AWS_REGION"))
        .or_else(|| environment("AWS_DEFAULT_REGION"))
        .or_else(|| profile.get("region"))
        .unwrap_or_else(|| "us-east-1".to_owned());
    let endpoint = options.get(Endpoint).map(str::to_owned);
    let endpoint = endpoint
        .or_else(|| environment("AWS_ENDPOINT_URL_S3"))
        .or_else(|| environment("AWS_ENDPOINT_URL"))
        .or_else(|| profile.get("endpoint_url"))
        .map(|endpoint| checked_endpoint(&endpoint))
        .transpose()?;

    let bucket = place.bucket();
    // Names with dots match no certificate of the form *.s3.region.amazonaws.com.
    let path_style = options.is_set(PathStyle).unwrap_or(endpoint.is_some() || bucket.contains('.'));
    let base = match (&endpoint, path_style) {
        (Some(endpoint), true) => Some(endpoint.clone()),
        (Some(endpoint), false) => Some(endpoint.replacen("://", &format!("://{bucket}."), 1)),
        (None, _) => None,
    };
    let ca_file = options.get(CaFile).map(str::to_owned).or_else(|| environment("AWS_CA_BUNDLE"));
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(&region)
        .with_virtual_hosted_style_request(!path_style)
        .with_retry(retries())
        .with_client_options(client_options(place, endpoint.as_deref(), ca_file)?);
    if let Some(base) = base {
        builder = builder.with_endpoint(base);
    }
    let credentials = if options.is_set(Anonymous) == Some(true) {
        builder = builder.with_skip_signature(true);
        "nobody's (anonymous)".to_owned()
    } else if let Some(keys) = keys(place, environment, &profile, chosen.is_some())? {
        let Keys { id, secret, token, source } = keys;
        secrets.push(secret.clone());
        secrets.extend(token.clone());
        builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        if let Some(token) = token {
            builder = builder.with_token(token);
        }
        source
    } else if let Some(borrows) = profile.borrows() {
        return Err(format!(
            "its AWS profile gets its keys by {borrows}, which is not understood; put keys into the environment, as \
             `aws configure export-credentials --format env` prints them"
        ));
    } else {
        let mut lent = false;
        for (variable, key) in LENT {
            if let Some(value) = environment(variable) {
                builder = builder.with_config(key, value);
                lent = true;
            }
        }
        let is_disabled =
            environment("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        match (lent, environment("AWS_EC2_METADATA_SERVICE_ENDPOINT")) {
            (true, _) => "those that the environment says how to get".to_owned(),
            (false, _) if is_disabled => {
                return Err("there are no credentials: pass access_key_id= and secret_access_key=, or set them in the \
                            environment or a profile; a public bucket is read with anonymous=True"
                    .to_owned());
            }
            (false, service) => {
                if let Some(service) = service {
                    builder = builder.with_metadata_endpoint(checked_endpoint(&service)?);
                }
                "none given, so asked of the machine's metadata service".to_owned()
            }
        }
    };
    let objects = BulkRemoval::build(builder).map_err(|error| unusable(&error, &secrets))?;
    let endpoint = endpoint.unwrap_or_else(|| format!("S3 in {region}"));
    Ok(Client { objects: Arc::new(objects), endpoint, credentials, secrets })
}

/// The keys to sign with: given, of a profile that was asked for, of the environment, of any profile.
fn keys(
    place: &RemotePlace,
    environment: Environment<'_>,
    profile: &Profile,
    is_chosen: bool,
) -> Result<Option<Keys>, String> {
    let options = place.options();
    let given = |option| options.get(option).map(str::to_owned);
    let of_options = (
        given(AccessKeyId),
        given(SecretAccessKey),
        given(SessionToken),
        "those of the options access_key_id and secret_access_key",
    );
    let of_profile = (
        profile.get("aws_access_key_id"),
        profile.get("aws_secret_access_key"),
        profile.get("aws_session_token"),
        "those of the AWS profile",
    );
    let of_environment = (
        environment("AWS_ACCESS_KEY_ID"),
        environment("AWS_SECRET_ACCESS_KEY"),
        environment("AWS_SESSION_TOKEN"),
        "those of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    );
    let order = match is_chosen {
        true => [of_options, of_profile, of_environment],
        false => [of_options, of_environment, of_profile],
    };
    for (id, secret, token, source) in order {
        match (id, secret) {
            (Some(id), Some(secret)) => {
                return Ok(Some(Keys { id, secret, token, source: source.to_owned() }));
            }
            (None, None) => {}
            (Some(_), None) => return Err(format!("its credentials ({source}) lack the secret key")),
            (None, Some(_)) => return Err(format!("its credentials ({source}) lack the key's id")),
        }
    }
    Ok(None)
}
