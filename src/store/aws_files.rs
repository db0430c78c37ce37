//! The files in which tools for S3 keep profiles: `~/.aws/credentials` and `~/.aws/config`.

use super::settings::StoreSettings;
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// What a profile says.
#[derive(Default)]
pub(super) struct Profile {
    pub(super) key_id: Option<String>,
    pub(super) secret: Option<Zeroizing<String>>,
    pub(super) token: Option<Zeroizing<String>>,
    pub(super) region: Option<String>,
    pub(super) endpoint: Option<String>,
}

impl Profile {
    /// The profile `named`, or the default one.
    ///
    /// # Errors
    /// `Usage` if it was named and is not there, or gets its credentials in a way that is not supported here.
    pub(super) fn load(settings: &StoreSettings, named: Option<&str>) -> Result<Self> {
        let name = named.or_else(|| settings.variable("AWS_PROFILE"));
        let mut values = BTreeMap::new();
        let files = [("AWS_CONFIG_FILE", ".aws/config", "profile "), ("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials", "")];
        for (variable, below_home, prefix) in files {
            let home = settings.home.as_ref().map(|home| home.join(below_home));
            let Some(path) = settings.variable(variable).map(PathBuf::from).or(home) else { continue };
            // Neither file has to be there.
            let Ok(text) = std::fs::read_to_string(&path).map(Zeroizing::new) else { continue };
            let section = match name {
                None | Some("default") => "default".to_owned(),
                Some(name) => format!("{prefix}{name}"),
            };
            values.extend(section_of(&text, &section));
        }
        if let (Some(name), true) = (name, values.is_empty()) {
            return Err(Error::usage(format!("use the profile {name:?}: neither ~/.aws/config nor ~/.aws/credentials has it")));
        }
        let has_keys = values.contains_key("aws_access_key_id");
        let ways = ["role_arn", "sso_session", "sso_start_url", "credential_process"];
        if let (false, Some(way)) = (has_keys, ways.iter().find(|way| values.contains_key(**way))) {
            let hint = "give the credentials in the environment: `aws configure export-credentials --format env` prints them";
            let message = format!("use the profile {:?}: {way} is not supported here", name.unwrap_or("default"));
            return Err(Error::usage(message).with_hint(hint));
        }
        let mut secret = |name: &str| values.remove(name).map(Zeroizing::new);
        let (token, secret) = (secret("aws_session_token"), secret("aws_secret_access_key"));
        let endpoint = values.remove("endpoint_url");
        Ok(Self { key_id: values.remove("aws_access_key_id"), secret, token, region: values.remove("region"), endpoint })
    }
}

/// The values of a section; nested ones, which are indented, are left out.
fn section_of(text: &str, wanted: &str) -> Vec<(String, String)> {
    let mut within = false;
    let mut values = Vec::new();
    for line in text.lines() {
        let bare = line.trim();
        if bare.is_empty() || bare.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = bare.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            within = name.split_whitespace().eq(wanted.split_whitespace());
        } else if let (true, false, Some((name, value))) = (within, line.starts_with([' ', '\t']), bare.split_once('=')) {
            values.push((name.trim().to_lowercase(), value.trim().to_owned()));
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn settings(files: &[(&str, &str)]) -> (tempfile::TempDir, StoreSettings) {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        for (name, text) in files {
            std::fs::write(home.path().join(".aws").join(name), text).unwrap();
        }
        let settings = StoreSettings { home: Some(home.path().into()), ..StoreSettings::default() };
        (home, settings)
    }

    #[test]
    fn profiles_are_put_together_from_both_files() {
        let config = "[default]\nregion = eu-west-1\n\n[profile off]\nregion=us-east-2\ns3 =\n    endpoint_url = no\n# x\n";
        let credentials = "[off]\naws_access_key_id = ID\naws_secret_access_key=SECRET\n[default]\naws_access_key_id=OTHER\n";
        let (_home, settings) = settings(&[("config", config), ("credentials", credentials)]);
        let profile = Profile::load(&settings, Some("off")).unwrap();
        assert_eq!((profile.key_id.as_deref(), profile.region.as_deref()), (Some("ID"), Some("us-east-2")));
        assert_eq!((profile.secret.as_ref().map(|text| text.as_str()), profile.endpoint), (Some("SECRET"), None));
        assert_eq!(Profile::load(&settings, None).unwrap().key_id.as_deref(), Some("OTHER"));
        assert_eq!(Profile::load(&settings, Some("none")).err().unwrap().kind(), ErrorKind::Usage);
    }

    #[test]
    fn what_only_other_tools_can_do_is_said() {
        let (_home, settings) = settings(&[("config", "[profile sso]\nsso_session = x\nregion = y\n")]);
        let error = Profile::load(&settings, Some("sso")).err().unwrap();
        assert!(error.to_string().contains("sso_session") && error.hint().contains("export-credentials"));
        assert!(Profile::load(&StoreSettings::default(), None).unwrap().key_id.is_none());
    }
}
