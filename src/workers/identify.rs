//! Thread `identify`: shows where this device is, by the first of these that there is: the
//! integrator's command, the hook, an LED.
//!
//! Owns the LED's settings while it blinks: whatever ends that, they are what they were
//! before. The kernel does the blinking where it can, so that nothing wakes up for it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::{Hook, IdentifySettings, Led};
use crate::core::event::HookEnd;
use crate::system::command::{self, CommandError};
use crate::system::hook::{self, Call};
use crate::system::http::Cancel;

/// Where the kernel has its LEDs.
pub const LEDS: &str = "/sys/class/leds";
/// How long an LED blinks.
const SHOW: Duration = Duration::from_secs(10);
/// Half a period.
const BLINK: Duration = Duration::from_millis(250);
/// The command is killed when it takes longer.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
const COMMAND_OUTPUT: usize = 64 * 1024;
/// What `auto` looks for in names, best first.
const MEANT_FOR_IT: [&str; 6] = ["identify", "locate", "status", "user", "act", "led0"];
/// What it leaves alone, whatever else is in the name.
const NOT_MEANT: [&str; 4] = ["lock", "mmc", "power", "reset"];

/// How this device shows itself.
#[derive(Clone)]
pub struct Site {
    pub settings: IdentifySettings,
    pub hooks: hook::Site,
    pub identifier: String,
    /// `/sys/class/leds`; tests have their own.
    pub leds: PathBuf,
    pub show: Duration,
    pub command_limit: Duration,
}

impl Site {
    pub fn new(settings: &IdentifySettings, identifier: &str, hooks: hook::Site) -> Self {
        Self {
            settings: settings.clone(),
            hooks,
            identifier: identifier.to_owned(),
            leds: PathBuf::from(LEDS),
            show: SHOW,
            command_limit: COMMAND_LIMIT,
        }
    }
}

/// Shows the device once.
///
/// # Errors
/// None; what goes wrong is logged, for nobody can do anything about it.
pub fn run(site: &Site, cancel: &Cancel) -> Result<(), String> {
    let shown = match &site.settings.command {
        Some(text) => run_command(site, text, cancel),
        None if run_hook(&site.hooks) => Ok(()),
        None => show_led(site, cancel),
    };
    if let Err(reason) = shown {
        warn!("identify: {reason}");
    }
    Ok(())
}

/// False when there is none. One that fails has the say all the same.
fn run_hook(hooks: &hook::Site) -> bool {
    let name = Hook::Identify.name();
    match hooks.run(&Call::new(Hook::Identify)) {
        HookEnd::Absent => return false,
        HookEnd::Exited { code: 0, .. } => {}
        HookEnd::Exited { code, .. } => warn!("hook {name} exited with {code}"),
        HookEnd::Failed(reason) => warn!("hook {name}: {reason}"),
    }
    true
}

fn show_led(site: &Site, cancel: &Cancel) -> Result<(), String> {
    match &site.settings.led {
        Led::None => {
            debug!("nothing to show it with: see NERVES_HUB_IDENTIFY_COMMAND");
            Ok(())
        }
        Led::Named(name) => blink(&site.leds.join(name), site.show, cancel),
        Led::Auto => match choose(&site.leds) {
            Some(led) => blink(&led, site.show, cancel),
            None => Err(format!(
                "no LED in {} is named for it; set NERVES_HUB_IDENTIFY_LED",
                site.leds.display()
            )),
        },
    }
}

fn run_command(site: &Site, text: &str, cancel: &Cancel) -> Result<(), String> {
    let mut program = command::shell(text);
    program.env("NERVES_HUB_DEVICE_IDENTIFIER", &site.identifier);
    let is_over = || cancel.is_cancelled();
    let limit = site.command_limit;
    let output = command::capture_until(&mut program, limit, COMMAND_OUTPUT, &is_over);
    let result = match output {
        Err(CommandError::Stopped { .. }) => Ok(()),
        Err(error) => Err(error.to_string()),
        Ok(output) => command::verdict(&output),
    };
    result.map_err(|problem| format!("NERVES_HUB_IDENTIFY_COMMAND: {text:?}: {problem}"))
}

/// The LED that is best for it by its name; of equal ones the first in the alphabet.
fn choose(leds: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(leds).ok()?.flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let best = names.filter_map(|name| {
        let plain = name.to_ascii_lowercase();
        let rank = MEANT_FOR_IT.iter().position(|word| plain.contains(word))?;
        let is_good = !NOT_MEANT.iter().any(|word| plain.contains(word))
            && leds.join(&name).join("brightness").exists();
        is_good.then_some((rank, name))
    });
    best.min().map(|(_, name)| leds.join(name))
}

/// An LED and how it was found.
struct Borrowed<'a> {
    led: &'a Path,
    trigger: Option<String>,
    brightness: Option<String>,
    delays: Option<(String, String)>,
}

/// Blinks until the time is over or nobody wants it any more.
fn blink(led: &Path, show: Duration, cancel: &Cancel) -> Result<(), String> {
    let wrong = |error: io::Error| format!("LED {}: {error}", led.display());
    let borrowed = Borrowed::new(led).map_err(wrong)?;
    info!("identify: LED {} blinks", led.display());
    let end = Instant::now() + show;
    let result = match borrowed.blink_by_kernel() {
        true => {
            cancel.sleep_until(end);
            Ok(())
        }
        false => borrowed.blink_by_hand(end, cancel),
    };
    borrowed.give_back();
    result.map_err(wrong)
}

impl<'a> Borrowed<'a> {
    fn new(led: &'a Path) -> io::Result<Self> {
        let brightness = read(led, "brightness")?;
        let trigger = read(led, "trigger").ok().and_then(|all| chosen(&all));
        let delays = read(led, "delay_on").and_then(|on| Ok((on, read(led, "delay_off")?)));
        Ok(Self {
            led,
            trigger,
            brightness: Some(brightness),
            delays: delays.ok(),
        })
    }

    /// False when this kernel cannot.
    fn blink_by_kernel(&self) -> bool {
        let half = BLINK.as_millis().to_string();
        let offered = read(self.led, "trigger").is_ok_and(|all| {
            all.split_whitespace()
                .any(|word| word.trim_matches(['[', ']']) == "timer")
        });
        offered
            && self.write("trigger", "timer").is_ok()
            && self.write("delay_on", &half).is_ok()
            && self.write("delay_off", &half).is_ok()
    }

    fn blink_by_hand(&self, end: Instant, cancel: &Cancel) -> io::Result<()> {
        if self.trigger.is_some() {
            self.write("trigger", "none")?;
        }
        let most = read(self.led, "max_brightness").unwrap_or_else(|_| "1".to_owned());
        let mut is_on = false;
        while Instant::now() < end && !cancel.is_cancelled() {
            is_on = !is_on;
            self.write("brightness", if is_on { &most } else { "0" })?;
            cancel.sleep_until(end.min(Instant::now() + BLINK));
        }
        Ok(())
    }

    /// The trigger first: setting one may change the brightness, and zero ends one.
    fn give_back(&self) {
        let trigger = self.trigger.as_deref();
        let mut steps: Vec<(&str, &str)> =
            trigger.map(|name| ("trigger", name)).into_iter().collect();
        match (trigger, &self.delays) {
            (Some("timer"), Some((on, off))) => {
                steps.extend([("delay_on", on.as_str()), ("delay_off", off)])
            }
            (None | Some("none"), _) => {
                steps.extend(
                    self.brightness
                        .as_deref()
                        .map(|value| ("brightness", value)),
                );
            }
            (Some(_), _) => {}
        }
        for (file, value) in steps {
            if let Err(error) = self.write(file, value) {
                let path = self.led.join(file);
                warn!("cannot set {} to {value} again: {error}", path.display());
            }
        }
    }

    /// Never creates one.
    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .truncate(true)
            .open(self.led.join(file))?;
        io::Write::write_all(&mut file, value.as_bytes())
    }
}

fn read(led: &Path, file: &str) -> io::Result<String> {
    fs::read_to_string(led.join(file)).map(|text| text.trim().to_owned())
}

/// The kernel lists all triggers, the one in force in brackets.
fn chosen(triggers: &str) -> Option<String> {
    let mut words = triggers.split_whitespace();
    let bracketed = words.find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    bracketed.map(str::to_owned)
}

#[cfg(test)]
mod tests;
