//! `nerveshub-agent validate`, `revert`, `prevent-revert`, `factory-reset` and `slots`.
//!
//! Owns their options, texts and exit codes; what they do is [`crate::system::slots`].
//! Prints nothing itself.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use super::{Answer, Call, Command, daemon};
use crate::config::LogTarget;
use crate::config::{self, Config};
use crate::system::command;
use crate::system::slots::{self, Description, Slot, SlotError, SlotSettings};
use crate::wire::json::json;
use crate::{exit, logging};

/// A reboot command that takes longer counts as failed.
const REBOOT_DEADLINE: Duration = Duration::from_secs(60);
const REBOOT_OUTPUT: usize = 64 * 1024;

pub(super) const COMMANDS: [Command; 5] = [
    Command {
        name: "validate",
        summary: "Mark the running firmware as good",
        help: "\
Usage: nerveshub-agent validate

Marks the running firmware as good, so that the boot loader stays with it. Runs
the task validate of ops.fw (NERVES_HUB_OPS_FW) where the device has one, else
sets nerves_fw_validated=1 in the U-Boot environment. May be repeated. An agent
that is running is told.

Example, at the end of a start script:
  my-app --self-test && nerveshub-agent validate
",
        run: |call| {
            let answer = on_slots(call, None, |_, settings, _| {
                slots::validate(settings)?;
                Ok(Answer::new(exit::OK, "the running firmware is validated"))
            });
            if answer.code == exit::OK {
                daemon::tell_validated(&call.env);
            }
            answer
        },
    },
    Command {
        name: "revert",
        summary: "Go back to the other slot's firmware",
        help: "\
Usage: nerveshub-agent revert [--reboot]

Makes the other slot the active one from the next boot on. Runs the task revert
of ops.fw (or of revert.fw beside it) where the device has one, else changes the
U-Boot environment; refused when the other slot holds no firmware.

  --reboot  Reboot right away, with NERVES_HUB_REBOOT_COMMAND

Example:
  nerveshub-agent revert --reboot
",
        run: |call| {
            on_slots(call, Some("--reboot"), |config, settings, reboot| {
                slots::revert(settings)?;
                Ok(rebooted(config, reboot, "the other slot is active"))
            })
        },
    },
    Command {
        name: "prevent-revert",
        summary: "Make going back impossible",
        help: "\
Usage: nerveshub-agent prevent-revert

Makes going back to the other slot impossible, for good. Runs the task
prevent-revert of ops.fw where the device has one, which also erases that slot;
else its platform, architecture and uuid are removed from the U-Boot environment
and its partition is left as it is. May be repeated.

Example, after an update with a data migration:
  nerveshub-agent validate && nerveshub-agent prevent-revert
",
        run: |call| {
            on_slots(call, None, |_, settings, _| {
                slots::prevent_revert(settings)?;
                Ok(Answer::new(exit::OK, "the other slot is no longer usable"))
            })
        },
    },
    Command {
        name: "factory-reset",
        summary: "Erase this device's data",
        help: "\
Usage: nerveshub-agent factory-reset [--reboot]

Erases what the device's maker counts as data, by the task factory-reset of
ops.fw (NERVES_HUB_OPS_FW). Not possible without that archive.

  --reboot  Reboot right away, with NERVES_HUB_REBOOT_COMMAND

Example:
  nerveshub-agent factory-reset --reboot
",
        run: |call| {
            on_slots(call, Some("--reboot"), |config, settings, reboot| {
                slots::factory_reset(settings)?;
                Ok(rebooted(config, reboot, "the device's data is erased"))
            })
        },
    },
    Command {
        name: "slots",
        summary: "Show what is in each slot (--json for programs)",
        help: "\
Usage: nerveshub-agent slots [--json]

Shows each slot: recorded as active, running, validated, and its firmware.

  --json  For programs: {\"active\":…,\"running\":…,\"slots\":[{\"slot\":…}]}

Example:
  nerveshub-agent slots --json | jq -r .active
",
        run: |call| {
            on_slots(call, Some("--json"), |_, settings, json| {
                let description = slots::describe(settings)?;
                let text = match json {
                    true => as_json(&description).to_string(),
                    false => table(&description),
                };
                Ok(Answer::new(exit::OK, text))
            })
        },
    },
];

/// `option`: the only one beside `--help`.
fn on_slots(
    call: &mut Call,
    option: Option<&str>,
    run: fn(&Config, &SlotSettings, bool) -> Result<Answer, SlotError>,
) -> Answer {
    let given = match call.options {
        [] => false,
        [given] if option == Some(given) => true,
        _ => return call.refuse(),
    };
    // None of these needs the hub, and a rescue shell may lack its settings.
    call.configure_aloud();
    let mut env = call.env.clone();
    env.push(("NERVES_HUB_CONNECT".into(), "0".into()));
    let (config, warnings) = match config::parse(env.into_iter()) {
        Ok(parsed) => parsed,
        Err(errors) => return Answer::new(exit::CONFIG, errors.to_string()),
    };
    logging::start(&config.log_filter, LogTarget::Stderr);
    for warning in warnings {
        warn!("{warning}");
    }
    let settings = SlotSettings::new(&config);
    run(&config, &settings, given).unwrap_or_else(|error| {
        let code = match &error {
            SlotError::Metadata(_) => exit::CONFIG,
            _ if error.is_unavailable() => exit::UNAVAILABLE,
            _ => exit::IO_ERROR,
        };
        Answer::new(code, error.to_string())
    })
}

fn rebooted(config: &Config, now: bool, done: &str) -> Answer {
    if !now {
        return Answer::new(exit::OK, format!("{done}; reboot for it to take effect"));
    }
    nix::unistd::sync();
    let text = &config.reboot_command;
    let mut shell = command::shell(text);
    let result = command::capture(&mut shell, REBOOT_DEADLINE, REBOOT_OUTPUT)
        .map_err(|error| error.to_string())
        .and_then(|output| command::verdict(&output));
    match result {
        Ok(()) => Answer::new(exit::OK, format!("{done}; rebooting")),
        Err(problem) => Answer::new(
            exit::OS_ERROR,
            format!(
                "{done}, but NERVES_HUB_REBOOT_COMMAND {text:?} failed: {problem}; reboot by hand"
            ),
        ),
    }
}

const NOTHING: &str = "–";

fn state(description: &Description, slot: &Slot) -> &'static str {
    let is = |name: &Option<String>| name.as_ref() == Some(&slot.name);
    match (is(&description.active), is(&description.running)) {
        (true, true) => "active, running",
        (true, false) => "active",
        (false, true) => "running",
        (false, false) => NOTHING,
    }
}

fn table(description: &Description) -> String {
    let mut rows = vec![["SLOT", "STATE", "VALIDATED", "UUID", "VERSION", "PRODUCT"]];
    for slot in &description.slots {
        rows.push([
            &slot.name,
            state(description, slot),
            match slot.validated {
                Some(true) => "yes",
                Some(false) => "no",
                None => NOTHING,
            },
            slot.uuid.as_deref().unwrap_or(NOTHING),
            slot.version.as_deref().unwrap_or(NOTHING),
            slot.product.as_deref().unwrap_or(NOTHING),
        ]);
    }
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn as_json(description: &Description) -> Value {
    let slots: Vec<Value> = description
        .slots
        .iter()
        .map(|slot| {
            json!({
                "slot": slot.name,
                "active": description.active.as_ref() == Some(&slot.name),
                // Unknown is not false.
                "running": description.running.as_ref().map(|name| *name == slot.name),
                "validated": slot.validated,
                "uuid": slot.uuid,
                "version": slot.version,
                "product": slot.product,
            })
        })
        .collect();
    json!({"active": description.active, "running": description.running, "slots": slots})
}
