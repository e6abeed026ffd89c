//! How the hub and download servers are reached, and what the core is told once.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use super::{StartError, archives, operator};
use crate::config::{Config, Credentials, Installer, LinkSettings, Serializer};
use crate::core::Setup;
use crate::core::endpoint::Endpoint;
use crate::system::dial::Dialer;
use crate::system::metadata::{Firmware, KeyValues};
use crate::system::tls::{self, ClientCertificate};
use crate::system::{tally, time};
use crate::workers::socket::{self, Login};

pub(super) fn setup(
    config: &Config,
    firmware: &Firmware,
    stale_slot: Option<String>,
    identifier: String,
    access: &Access,
) -> Setup {
    let signs = matches!(access.context.login, Login::SharedSecret { .. });
    let host = config.host.as_ref().filter(|_| config.connect);
    Setup {
        identifier,
        endpoint: host.map(|host| Endpoint {
            secure: host.secure,
            host: host.host.clone(),
            port: host.port,
            path: socket_path(signs, &config.link).to_owned(),
        }),
        link: config.link.clone(),
        signs,
        allow_insecure: config.allow_insecure,
        firmware: firmware.keys.clone(),
        firmware_uuid: firmware.uuid.clone(),
        firmware_validated: firmware.validated,
        auto_revert_detected: firmware.auto_revert_detected,
        trial: config.trial.clone(),
        policy: config.policy.clone(),
        trial_reboots: None,
        reboot_timeout: config.reboot_timeout,
        reboot_force: config.reboot_force,
        stale_slot,
        devpath: config
            .fwup
            .devpath
            .clone()
            .or_else(|| firmware.devpath.clone()),
        update_tool: config.fwup.installer.tool(),
        installer_verifies: config.fwup.installer != Installer::Fwup,
        public_keys: config.fwup.public_keys.clone(),
        request_public_keys: config.fwup.request_public_keys,
        archives: config.archives.policy,
        archive_keys: config.archives.public_keys.clone(),
        request_archive_keys: config.archives.request_public_keys,
        handled_archives: archives::handled(config),
        kept_keys: archives::kept_keys(config),
        shells: config.shells.policy,
        operator: operator::setup(&config.operator),
        extensions: Vec::new(),
        extension_timeout: config.extensions.timeout,
        shutdown_timeout: config.shutdown_timeout,
        fresh_offer_timeout: config.fresh_offer_timeout,
        clock_unset: !time::is_plausible(),
        running_slot: None,
        installed: None,
        // The standard library keys its hasher with the system's random source.
        seed: RandomState::new().build_hasher().finish(),
    }
}

/// How often this firmware was rebooted because nobody marked it valid. What an earlier
/// firmware, or one that is valid by now, left behind is dropped; not when the metadata
/// could not be read (`is_known` false), which makes any firmware look valid.
pub(super) fn trial_reboots(config: &Config, firmware: &Firmware, is_known: bool) -> Option<u64> {
    let path = tally::path(&config.data_path);
    let running = firmware.uuid.as_deref().filter(|_| !firmware.validated);
    if running.is_none() && !is_known {
        return None;
    }
    tally::recall(&path, running)
        .inspect_err(|error| error!("reboots counted in {}: {error}", path.display()))
        .ok()
}

/// PROTOCOL §1.
fn socket_path(shared_secret: bool, link: &LinkSettings) -> &'static str {
    match (shared_secret, link.serializer) {
        (true, Serializer::Json) => "/device-socket/websocket?vsn=2.0.0",
        (true, Serializer::Msgpack) => "/device-socket/websocket?vsn=3.0.0",
        (false, Serializer::Json) => "/socket/websocket?vsn=2.0.0",
        (false, Serializer::Msgpack) => "/socket/websocket?vsn=3.0.0",
    }
}

/// How the hub and download servers are reached; kept across connections so that TLS
/// sessions resume.
pub(super) struct Access {
    credentials: Option<Credentials>,
    identifier: String,
    pub context: Arc<socket::Context>,
    pub download: Arc<Dialer>,
}

impl Access {
    pub(super) fn new(
        config: &Config,
        values: &KeyValues,
        identifier: &str,
    ) -> Result<Self, StartError> {
        let credentials = config.credentials.clone().or_else(|| values.credentials());
        if credentials.is_none() && config.connect {
            let text = "no credentials: set NERVES_HUB_PRODUCT_KEY and NERVES_HUB_PRODUCT_SECRET, \
                        NERVES_HUB_SHARED_KEY and NERVES_HUB_SHARED_SECRET, or NERVES_HUB_CERT_FILE and \
                        NERVES_HUB_KEY_FILE, or provision them in the firmware's key-value store";
            return Err(StartError::Config(text.to_owned()));
        }
        let (context, download) = ways(config, credentials.as_ref(), identifier)
            .map_err(|error| StartError::Config(error.to_string()))?;
        Ok(Self {
            credentials,
            identifier: identifier.to_owned(),
            context,
            download,
        })
    }

    /// SIGHUP: a set of files that is broken leaves the old one in use.
    pub(super) fn reload(&mut self, config: &Config) {
        if config.credentials.is_some() {
            self.credentials.clone_from(&config.credentials);
        }
        match ways(config, self.credentials.as_ref(), &self.identifier) {
            Ok((context, download)) => (self.context, self.download) = (context, download),
            Err(error) => error!("{error}; keeping the credentials in use"),
        }
    }
}

/// To the hub, and to file servers: from the same files, so both or neither.
fn ways(
    config: &Config,
    credentials: Option<&Credentials>,
    identifier: &str,
) -> Result<(Arc<socket::Context>, Arc<Dialer>), tls::TlsSetupError> {
    let context = context(config, credentials, identifier)?;
    let download = Dialer {
        // Never offers the device's certificate to a file server.
        tls: tls::client_config(&config.tls, None)?,
        server_name: None,
        ..(*context.dialer).clone()
    };
    Ok((Arc::new(context), Arc::new(download)))
}

fn context(
    config: &Config,
    credentials: Option<&Credentials>,
    identifier: &str,
) -> Result<socket::Context, tls::TlsSetupError> {
    let (login, certificate) = match credentials {
        Some(Credentials::SharedSecret { key, secret }) => {
            let (key, secret) = (key.clone(), secret.clone());
            (
                Login::SharedSecret {
                    key,
                    secret,
                    identifier: identifier.to_owned(),
                },
                None,
            )
        }
        Some(Credentials::CertificateFiles { cert, key }) => {
            (Login::Certificate, Some(tls::read_client(cert, key)?))
        }
        Some(Credentials::CertificatePem { cert, key }) => {
            let origin = "nerves_hub_cert and nerves_hub_key".to_owned();
            (
                Login::Certificate,
                Some(ClientCertificate {
                    chain: cert.clone(),
                    key: key.clone(),
                    origin,
                }),
            )
        }
        None => (Login::Certificate, None),
    };
    let dialer = Dialer {
        tls: tls::client_config(&config.tls, certificate.as_ref())?,
        proxy: config.proxy.clone(),
        timeouts: config.link.timeouts,
        server_name: config.tls.server_name.clone(),
    };
    Ok(socket::Context {
        dialer: Arc::new(dialer),
        login,
        serializer: config.link.serializer,
    })
}
