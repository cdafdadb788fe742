//! Profiles of the shared AWS configuration files, as far as they hold keys.
//!
//! Format: <https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>. Profiles that get their keys from another
//! service (single sign-on, an assumed role, a program) are refused by name: such keys can be put in the environment.

use super::Environment;
use std::collections::HashMap;
use std::path::PathBuf;

/// What a profile says.
#[derive(Default)]
pub(super) struct Profile {
    settings: HashMap<String, String>,
}

impl Profile {
    /// Reads a profile. `None`: there is none of that name, or no file.
    pub(super) fn read(name: &str, environment: Environment<'_>) -> Option<Self> {
        let home = environment("HOME").map(PathBuf::from);
        let file = |variable: &str, default: &str| {
            let path = environment(variable).map(PathBuf::from);
            let path = path.or_else(|| home.as_ref().map(|home| home.join(".aws").join(default)))?;
            std::fs::read_to_string(path).ok()
        };
        let mut profile: Option<Profile> = None;
        // What the file of credentials says counts for more.
        for (text, is_config) in [
            (file("AWS_CONFIG_FILE", "config"), true),
            (file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), false),
        ] {
            let Some(text) = text else { continue };
            let section = match is_config && name != "default" {
                true => format!("profile {name}"),
                false => name.to_owned(),
            };
            if let Some(found) = section_of(&text, &section) {
                profile.get_or_insert_default().settings.extend(found);
            }
        }
        profile
    }

    pub(super) fn get(&self, setting: &str) -> Option<String> {
        self.settings.get(setting).cloned().filter(|value| !value.is_empty())
    }

    /// By which service the profile gets its keys, if it does not hold them.
    pub(super) fn borrows(&self) -> Option<&'static str> {
        ["sso_session", "sso_start_url", "role_arn", "credential_process", "web_identity_token_file"]
            .into_iter()
            .find(|setting| self.settings.contains_key(*setting))
    }
}

/// The settings of a section, if it is there. Nested settings (indented) are left out.
fn section_of(text: &str, section: &str) -> Option<HashMap<String, String>> {
    let mut found: Option<HashMap<String, String>> = None;
    let mut is_inside = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(header) = trimmed.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            is_inside = header.split_whitespace().eq(section.split_whitespace());
            if is_inside {
                found.get_or_insert_default();
            }
            continue;
        }
        let is_nested = line.starts_with([' ', '\t']);
        if let (true, false, Some((name, value))) = (is_inside, is_nested, trimmed.split_once('=')) {
            let settings = found.get_or_insert_default();
            settings.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    found
}
