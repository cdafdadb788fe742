//! Clients of Azure Blob Storage.

use super::options::RemoteOption::{AccountKey, AccountName, Anonymous, CaFile, Endpoint, SasToken};
use super::{Client, Environment, RemotePlace, checked_endpoint, client_options, retries, unusable};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use std::sync::Arc;

/// Settings of other ways to get rights, which the client knows.
const OTHERS: [(&str, AzureConfigKey); 7] = [
    ("AZURE_STORAGE_CLIENT_ID", AzureConfigKey::ClientId),
    ("AZURE_CLIENT_ID", AzureConfigKey::ClientId),
    ("AZURE_STORAGE_CLIENT_SECRET", AzureConfigKey::ClientSecret),
    ("AZURE_CLIENT_SECRET", AzureConfigKey::ClientSecret),
    ("AZURE_STORAGE_TENANT_ID", AzureConfigKey::AuthorityId),
    ("AZURE_TENANT_ID", AzureConfigKey::AuthorityId),
    ("AZURE_FEDERATED_TOKEN_FILE", AzureConfigKey::FederatedTokenFile),
];

pub(super) fn client(place: &RemotePlace, environment: Environment<'_>) -> Result<Client, String> {
    let options = place.options();
    let given = |option| options.get(option).map(str::to_owned);
    let Some(account) = given(AccountName).or_else(|| environment("AZURE_STORAGE_ACCOUNT_NAME")) else {
        return Err(
            "it needs the option account_name, or AZURE_STORAGE_ACCOUNT_NAME in the environment".to_owned()
        );
    };
    let endpoint = given(Endpoint).or_else(|| environment("AZURE_STORAGE_ENDPOINT"));
    let endpoint = endpoint.map(|endpoint| checked_endpoint(&endpoint)).transpose()?;
    let mut builder = MicrosoftAzureBuilder::new()
        .with_account(&account)
        .with_container_name(place.bucket())
        .with_retry(retries())
        .with_client_options(client_options(place, endpoint.as_deref(), given(CaFile))?);
    if let Some(endpoint) = &endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    let mut secrets = options.secrets();
    let key = given(AccountKey)
        .or_else(|| environment("AZURE_STORAGE_ACCOUNT_KEY"))
        .or_else(|| environment("AZURE_STORAGE_ACCESS_KEY"));
    let sas = given(SasToken).or_else(|| environment("AZURE_STORAGE_SAS_TOKEN"));
    let credentials = if options.is_set(Anonymous) == Some(true) {
        builder = builder.with_skip_signature(true);
        "nobody's (anonymous)"
    } else if let Some(key) = key {
        secrets.push(key.clone());
        builder = builder.with_access_key(key);
        "those of account_key or AZURE_STORAGE_ACCOUNT_KEY"
    } else if let Some(sas) = sas {
        secrets.push(sas.clone());
        // The parts of a token are shown one by one in URLs.
        secrets.extend(sas.split('&').filter_map(|part| part.strip_prefix("sig=")).map(str::to_owned));
        builder = builder.with_config(AzureConfigKey::SasKey, sas);
        "those of sas_token or AZURE_STORAGE_SAS_TOKEN"
    } else {
        for (variable, key) in OTHERS {
            if let Some(value) = environment(variable) {
                if variable.ends_with("SECRET") {
                    secrets.push(value.clone());
                }
                builder = builder.with_config(key, value);
            }
        }
        "those of AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or of the machine's metadata service"
    };
    let objects = builder.build().map_err(|error| unusable(&error, &secrets))?;
    let endpoint = endpoint.unwrap_or_else(|| format!("the storage account {account}"));
    Ok(Client { objects: Arc::new(objects), endpoint, credentials: credentials.to_owned(), secrets })
}
