//! Clients of Google Cloud Storage.

use super::options::RemoteOption::{Anonymous, CaFile, Endpoint, ServiceAccount};
use super::{Client, Environment, RemotePlace, checked_endpoint, client_options, retries, unusable};
use object_store::StaticCredentialProvider;
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder};
use std::sync::Arc;

pub(super) fn client(place: &RemotePlace, environment: Environment<'_>) -> Result<Client, String> {
    let options = place.options();
    let endpoint = options.get(Endpoint).map(str::to_owned);
    let endpoint = endpoint
        .or_else(|| environment("STORAGE_EMULATOR_HOST"))
        .map(|endpoint| checked_endpoint(&endpoint))
        .transpose()?;
    let ca_file = options.get(CaFile).map(str::to_owned);
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(place.bucket())
        .with_retry(retries())
        .with_client_options(client_options(place, endpoint.as_deref(), ca_file)?);
    if let Some(endpoint) = &endpoint {
        builder = builder.with_base_url(endpoint);
    }
    let file = |path: String, source: &str| match std::fs::metadata(&path) {
        Ok(_) => Ok((path, source.to_owned())),
        Err(error) => Err(format!("its {source} {path:?} cannot be read: {error}")),
    };
    let credentials = if options.is_set(Anonymous) == Some(true) {
        // Without one, what is written would still ask the machine's metadata service for credentials.
        let nobody = StaticCredentialProvider::new(GcpCredential { bearer: String::new() });
        builder = builder.with_skip_signature(true).with_credentials(Arc::new(nobody));
        "nobody's (anonymous)".to_owned()
    } else if let Some(path) = options.get(ServiceAccount) {
        let (path, source) = file(path.to_owned(), "service_account")?;
        builder = builder.with_service_account_path(path);
        source
    } else if let Some(path) = environment("GOOGLE_SERVICE_ACCOUNT") {
        let (path, source) = file(path, "GOOGLE_SERVICE_ACCOUNT")?;
        builder = builder.with_service_account_path(path);
        source
    } else if let Some(path) = environment("GOOGLE_APPLICATION_CREDENTIALS") {
        let (path, source) = file(path, "GOOGLE_APPLICATION_CREDENTIALS")?;
        builder = builder.with_application_credentials(path);
        source
    } else {
        "those of gcloud's default login, or of the machine's metadata service".to_owned()
    };
    let secrets = options.secrets();
    let objects = builder.build().map_err(|error| unusable(&error, &secrets))?;
    let endpoint = endpoint.unwrap_or_else(|| "Google Cloud Storage".to_owned());
    Ok(Client { objects: Arc::new(objects), endpoint, credentials, secrets })
}
