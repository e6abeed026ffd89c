//! Which shells the hub may open, and how they are started.

use crate::config::reader::Reader;
use crate::config::table::setting;
use crate::config::{ShellPolicy, ShellSettings};

pub(super) fn shells(r: &mut Reader) -> ShellSettings {
    let policy = ShellPolicy {
        console: r.flag(setting!("NERVES_HUB_CONSOLE")) == Some(true),
        local: r.flag(setting!("NERVES_HUB_LOCAL_SHELL")) == Some(true),
        timeout: r.duration(setting!("NERVES_HUB_CONSOLE_TIMEOUT")),
    };
    let user = r.text(setting!("NERVES_HUB_SHELL_USER"));
    for (open, way) in [(policy.console, "console"), (policy.local, "local shell")] {
        if open {
            let user = user.as_deref().unwrap_or("the agent's own user");
            r.warnings.push(format!(
                "the {way} is enabled: whoever may open it at the hub can do on this device what {user} can"
            ));
        }
    }
    ShellSettings {
        policy,
        command: r.text(setting!("NERVES_HUB_CONSOLE_COMMAND")),
        user,
        environment: r.others(|name| {
            matches!(name, "PATH" | "SHELL" | "LANG" | "TZ") || name.starts_with("LC_")
        }),
    }
}
