//! [`RemoteOptions`]: how a bucket is reached, and with whose rights.

use super::place::RemoteKind;
use std::collections::BTreeMap;
use std::fmt;

macro_rules! options {
    ($($name:literal $variant:ident $kinds:expr, $secret:literal, $doc:literal;)*) => {
        /// One option of a bucket.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub(crate) enum RemoteOption {
            $(#[doc = $doc] $variant,)*
        }

        impl RemoteOption {
            const ALL: &'static [RemoteOption] = &[$(RemoteOption::$variant),*];

            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(RemoteOption::$variant => $name,)*
                }
            }

            const fn kinds(self) -> &'static [RemoteKind] {
                match self {
                    $(RemoteOption::$variant => $kinds,)*
                }
            }

            const fn is_secret(self) -> bool {
                match self {
                    $(RemoteOption::$variant => $secret,)*
                }
            }
        }
    };
}

use RemoteKind::{Azure, Gcs, S3};

options! {
    "endpoint" Endpoint &[S3, Gcs, Azure], false, "URL of the service, if it is not the provider's own.";
    "region" Region &[S3], false, "Region of the bucket.";
    "access_key_id" AccessKeyId &[S3], true, "Name of the key.";
    "secret_access_key" SecretAccessKey &[S3], true, "The key.";
    "session_token" SessionToken &[S3], true, "What goes with a temporary key.";
    "profile" Profile &[S3], false, "Profile of the shared AWS configuration files.";
    "path_style" PathStyle &[S3], false, "Whether the bucket is named in the path of a request, not in its host.";
    "account_name" AccountName &[Azure], false, "Storage account.";
    "account_key" AccountKey &[Azure], true, "Key of the storage account.";
    "sas_token" SasToken &[Azure], true, "Shared access signature.";
    "service_account" ServiceAccount &[Gcs], false, "Path of a service account's JSON file.";
    "anonymous" Anonymous &[S3, Gcs, Azure], false, "Whether requests are not signed: for public buckets.";
    "ca_file" CaFile &[S3, Gcs, Azure], false, "PEM file of certificates to trust beside the system's.";
    "timeout" Timeout &[S3, Gcs, Azure], false, "Seconds that one request may take.";
    "cache" Cache &[S3, Gcs, Azure], false, "Folder that keeps what was read; true: one of the user's.";
    "cache_size" CacheSize &[S3, Gcs, Azure], false, "Bytes that this folder may take.";
}

/// How a bucket is reached, and with whose rights; what is not given is looked for in the environment.
///
/// Shown, it leaves out what is secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RemoteOptions {
    values: BTreeMap<RemoteOption, String>,
}

impl RemoteOptions {
    /// The names of the options of a kind of place.
    pub fn names(kind: RemoteKind) -> impl Iterator<Item = &'static str> {
        RemoteOption::ALL
            .iter()
            .filter(move |option| option.kinds().contains(&kind))
            .map(|option| option.name())
    }

    /// Takes an option, in place of an earlier value of it.
    ///
    /// # Errors
    /// Why it cannot be taken, without its value.
    pub(crate) fn set(&mut self, kind: RemoteKind, name: &str, value: &str) -> Result<(), String> {
        let known = RemoteOption::ALL.iter().find(|option| option.name() == name);
        let Some(option) = known.filter(|option| option.kinds().contains(&kind)) else {
            let names = RemoteOptions::names(kind).collect::<Vec<_>>().join(", ");
            return Err(format!("{name:?} is no option of a {} place; there are {names}", kind.scheme()));
        };
        if matches!(option, RemoteOption::PathStyle | RemoteOption::Anonymous) && truth(value).is_none() {
            return Err(format!("{name} is true or false"));
        }
        self.values.insert(*option, value.to_owned());
        Ok(())
    }

    pub(crate) fn get(&self, option: RemoteOption) -> Option<&str> {
        self.values.get(&option).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(crate) fn is_set(&self, option: RemoteOption) -> Option<bool> {
        self.get(option).and_then(truth)
    }

    /// What is not secret: names and values.
    pub(crate) fn shown(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let open = self.values.iter().filter(|(option, _)| !option.is_secret());
        open.map(|(option, value)| (option.name(), value.as_str()))
    }

    /// The values that are shown nowhere.
    pub(crate) fn secrets(&self) -> Vec<String> {
        self.values.iter().filter(|(option, _)| option.is_secret()).map(|(_, value)| value.clone()).collect()
    }
}

fn truth(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Some(true),
        "false" | "0" | "no" => Some(false),
        _ => None,
    }
}

impl fmt::Debug for RemoteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.values.iter().map(|(option, value)| match option.is_secret() {
            true => (option.name(), "***"),
            false => (option.name(), value.as_str()),
        });
        f.debug_map().entries(shown).finish()
    }
}
