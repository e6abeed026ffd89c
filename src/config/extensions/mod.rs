//! Which extensions are enabled, and what each of them is told.

mod custom;
mod geo;
mod health;
mod identity;
mod logging;

use std::time::Duration;

use super::reader::Reader;
use super::table::setting;
pub use custom::CustomSettings;
pub use geo::{GeoSettings, GeoSource};
pub use health::{HealthSettings, MetricSet, READ_ONLY, fits_a_name};
pub use identity::{IdentitySettings, Program, Provider};
pub use logging::{LogSource, LoggingSettings, Severity};

/// Which extensions are enabled, and what each of them is told.
#[derive(Clone, Debug, Default)]
pub struct ExtensionSettings {
    /// Names, as given.
    pub enabled: Vec<String>,
    /// How long one may work upon what it was told.
    pub timeout: Duration,
    pub health: HealthSettings,
    pub geo: GeoSettings,
    pub logging: LoggingSettings,
    pub identity: IdentitySettings,
    pub custom: CustomSettings,
}

pub(super) fn read(r: &mut Reader) -> ExtensionSettings {
    ExtensionSettings {
        enabled: r.list(setting!("NERVES_HUB_EXTENSIONS")),
        timeout: r.duration(setting!("NERVES_HUB_EXTENSION_TIMEOUT")),
        health: health::read(r),
        geo: geo::read(r),
        logging: logging::read(r),
        identity: identity::read(r),
        custom: custom::read(r),
    }
}
