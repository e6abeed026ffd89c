//! Whom a shell runs as, and what it finds in its environment. Starts nothing.

use std::ffi::{CString, OsString};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist};

use crate::config::ShellSettings;

const SH: &str = "/bin/sh";
/// Where programs are when the agent was not told.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A user with everything a session needs.
#[derive(Debug)]
pub(super) struct Account {
    pub name: String,
    pub home: PathBuf,
    pub shell: PathBuf,
    /// To be taken on; `None`: the agent's own, which needs nothing.
    pub identity: Option<Identity>,
}

#[derive(Debug)]
pub(super) struct Identity {
    pub uid: Uid,
    pub gid: Gid,
    pub groups: Vec<Gid>,
}

impl Account {
    /// # Errors
    /// There is no such user, or the agent may not become it.
    pub(super) fn find(settings: &ShellSettings) -> Result<Self, String> {
        let Some(name) = &settings.user else {
            return Ok(Self::own(settings));
        };
        let found = User::from_name(name);
        let user = found.map_err(|error| format!("NERVES_HUB_SHELL_USER: {name:?}: {error}"))?;
        let user = user.ok_or_else(|| {
            format!("NERVES_HUB_SHELL_USER: there is no user {name:?} in /etc/passwd")
        })?;
        if user.uid == geteuid() {
            return Ok(Self::of(user, None));
        }
        if !geteuid().is_root() {
            return Err(format!(
                "NERVES_HUB_SHELL_USER: only an agent that runs as root can start shells as {name}"
            ));
        }
        let login = CString::new(user.name.as_str()).unwrap_or_default();
        let groups = getgrouplist(&login, user.gid)
            .map_err(|error| format!("NERVES_HUB_SHELL_USER: groups of {name}: {error}"))?;
        let identity = Identity {
            uid: user.uid,
            gid: user.gid,
            groups,
        };
        Ok(Self::of(user, Some(identity)))
    }

    fn own(settings: &ShellSettings) -> Self {
        let mut account = match User::from_uid(geteuid()) {
            Ok(Some(user)) => Self::of(user, None),
            // Small systems may have no /etc/passwd.
            Ok(None) | Err(_) => Self {
                name: "root".to_owned(),
                home: PathBuf::from("/"),
                shell: PathBuf::from(SH),
                identity: None,
            },
        };
        let shell = settings
            .environment
            .iter()
            .find(|(name, _)| name == "SHELL");
        account.shell = shell.map_or(PathBuf::from(SH), |(_, path)| PathBuf::from(path));
        account
    }

    fn of(user: User, identity: Option<Identity>) -> Self {
        let is_shell = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| !matches!(name, "nologin" | "false"))
        };
        let shell = Some(user.shell).filter(|path| is_shell(path));
        Self {
            name: user.name,
            home: user.dir,
            shell: shell.unwrap_or_else(|| PathBuf::from(SH)),
            identity,
        }
    }

    /// Everything that is in the environment, whatever is in the agent's.
    pub(super) fn environment(&self, settings: &ShellSettings) -> Vec<(String, OsString)> {
        let mut all: Vec<(String, OsString)> = vec![("PATH".to_owned(), PATH.into())];
        all.extend(settings.environment.iter().cloned());
        for (name, value) in [
            ("TERM", OsString::from("xterm-256color")),
            ("HOME", self.home.clone().into()),
            ("USER", self.name.clone().into()),
            ("LOGNAME", self.name.clone().into()),
            ("SHELL", self.shell.clone().into()),
        ] {
            all.push((name.to_owned(), value));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(all: &[(String, OsString)], name: &str) -> Option<OsString> {
        // Of equal names the last counts, as it does for a command.
        let found = all.iter().rfind(|(other, _)| other == name);
        found.map(|(_, value)| value.clone())
    }

    #[test]
    fn the_environment_is_a_login_s_and_only_the_place_comes_from_the_agent() {
        let mut settings = ShellSettings::default();
        let account = Account::find(&settings).expect("own account");
        let all = account.environment(&settings);
        assert_eq!(value(&all, "PATH"), Some(PATH.into()));
        assert_eq!(value(&all, "TERM"), Some("xterm-256color".into()));
        assert_eq!(value(&all, "SHELL"), Some(SH.into()));
        settings.environment = vec![
            ("PATH".into(), "/opt/bin".into()),
            ("SHELL".into(), "/bin/ash".into()),
            ("TZ".into(), "Europe/Berlin".into()),
        ];
        let account = Account::find(&settings).expect("own account");
        let all = account.environment(&settings);
        assert_eq!(value(&all, "PATH"), Some("/opt/bin".into()));
        assert_eq!(value(&all, "SHELL"), Some("/bin/ash".into()));
        assert_eq!(value(&all, "TZ"), Some("Europe/Berlin".into()));
        for name in ["HOME", "USER", "LOGNAME"] {
            assert!(
                value(&all, name).is_some_and(|value| !value.is_empty()),
                "{name}"
            );
        }
    }

    #[test]
    fn a_user_that_does_not_exist_is_named() {
        let settings = ShellSettings {
            user: Some("nobody-of-this-name".into()),
            ..ShellSettings::default()
        };
        let error = Account::find(&settings).expect_err("no such user");
        assert!(error.contains("NERVES_HUB_SHELL_USER"), "{error}");
        assert!(error.contains("nobody-of-this-name"), "{error}");
    }
}
