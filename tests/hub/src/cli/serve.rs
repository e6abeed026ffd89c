//! `hub serve`: a hub in the foreground.

use super::state_dir::{self, absolute};
use super::{SERVE_HELP, say, text, unexpected};
use devhub::catalog::Catalog;
use devhub::control::Control;
use devhub::{Builder, Hub, Tls};
use lexopt::prelude::*;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

struct Options {
    listen: SocketAddr,
    firmware_listen: SocketAddr,
    control: SocketAddr,
    host: Option<String>,
    tls: Tls,
    mtls: bool,
    mtls_ca: Option<PathBuf>,
    state: PathBuf,
    product: (String, String),
    devices: Vec<(String, String, String)>,
    firmware: Option<PathBuf>,
    uuids: BTreeMap<String, String>,
    offer: Option<PathBuf>,
    public_keys: Vec<String>,
    extensions: bool,
    idle_timeout: u64,
    clock_offset: i64,
    help: bool,
}

impl Default for Options {
    fn default() -> Options {
        let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        Options {
            listen: local(4000),
            firmware_listen: local(4002),
            control: local(4001),
            host: None,
            tls: Tls::Plain,
            mtls: false,
            mtls_ca: None,
            state: state_dir::DEFAULT.into(),
            product: ("nhp_development".into(), "development-secret".into()),
            devices: vec![],
            firmware: None,
            uuids: BTreeMap::new(),
            offer: None,
            public_keys: vec![],
            extensions: true,
            idle_timeout: 180,
            clock_offset: 0,
            help: false,
        }
    }
}

/// Runs until killed.
pub fn run(parser: lexopt::Parser) -> Result<(), String> {
    let options = parse(parser)?;
    if options.help {
        return say(SERVE_HELP);
    }
    let hub = Arc::new(start(&options)?);
    let mut catalog = Catalog::new(options.firmware.clone(), options.uuids.clone());
    if let Some(file) = &options.offer {
        let firmware = catalog.add(&hub, file)?;
        println!(
            "# every device is offered {} ({})",
            file.display(),
            firmware.uuid
        );
        hub.deploy(Some(&firmware));
    }
    let control = Control::start(hub.clone(), catalog, options.control)
        .map_err(|error| format!("control port {}: {error}", options.control))?;
    announce(&options, &hub, &control);
    loop {
        // Everything happens in the threads of the hub.
        std::thread::park();
    }
}

fn parse(mut parser: lexopt::Parser) -> Result<Options, String> {
    let mut options = Options::default();
    while let Some(argument) = parser.next().map_err(text)? {
        let Long(name) = argument else {
            match argument {
                Short('h') => options.help = true,
                other => return Err(unexpected(other)),
            }
            continue;
        };
        let name = name.to_owned();
        if !set_flag(&mut options, &name) {
            let known = VALUES.contains(&name.as_str());
            if !known {
                return Err(format!("unknown option --{name}; see hub serve --help"));
            }
            let value = parser.value().map_err(text)?.string().map_err(text)?;
            set_value(&mut options, &name, &value)
                .map_err(|error| format!("--{name} {value}: {error}"))?;
        }
    }
    Ok(options)
}

fn set_flag(options: &mut Options, name: &str) -> bool {
    match name {
        "help" => options.help = true,
        "tls" => options.tls = Tls::Server,
        "tls12" => options.tls = Tls::Only12,
        "mtls" => options.mtls = true,
        "no-extensions" => options.extensions = false,
        _ => return false,
    }
    true
}

const VALUES: [&str; 15] = [
    "listen",
    "firmware-listen",
    "control",
    "host",
    "mtls-ca",
    "state",
    "product-key",
    "product-secret",
    "device-key",
    "firmware",
    "uuid",
    "offer",
    "public-key",
    "idle-timeout",
    "clock-offset",
];

fn set_value(options: &mut Options, name: &str, value: &str) -> Result<(), String> {
    match name {
        "listen" => options.listen = value.parse().map_err(text)?,
        "firmware-listen" => options.firmware_listen = value.parse().map_err(text)?,
        "control" => options.control = value.parse().map_err(text)?,
        "host" => options.host = Some(value.into()),
        "mtls-ca" => options.mtls_ca = Some(value.into()),
        "state" => options.state = value.into(),
        "product-key" if !value.starts_with("nhp_") => {
            return Err("a product key starts with nhp_".into());
        }
        "product-key" => options.product.0 = value.into(),
        "product-secret" => options.product.1 = value.into(),
        "device-key" => options.devices.push(device_key(value)?),
        "firmware" => options.firmware = Some(value.into()),
        "uuid" => {
            let (file, uuid) = value.split_once('=').ok_or("must be FILE=UUID")?;
            options.uuids.insert(file.into(), uuid.into());
        }
        "offer" => options.offer = Some(value.into()),
        "public-key" => options.public_keys.push(value.into()),
        "idle-timeout" => options.idle_timeout = value.parse().map_err(text)?,
        "clock-offset" => options.clock_offset = value.parse().map_err(text)?,
        other => return Err(format!("no such option: {other}")),
    }
    Ok(())
}

fn device_key(value: &str) -> Result<(String, String, String), String> {
    let parts: Vec<&str> = value.splitn(3, ':').collect();
    match parts.as_slice() {
        [key, secret, identifier] => Ok(((*key).into(), (*secret).into(), (*identifier).into())),
        _ => Err("must be KEY:SECRET:IDENTIFIER".into()),
    }
}

fn start(options: &Options) -> Result<Hub, String> {
    let keys: Vec<&str> = options.public_keys.iter().map(String::as_str).collect();
    let mut builder = Hub::builder()
        .listen(options.listen)
        .store_listen(options.firmware_listen)
        .product(&options.product.0, &options.product.1)
        .public_keys(&keys, &keys)
        .idle_timeout(Duration::from_secs(options.idle_timeout))
        .clock_offset(options.clock_offset)
        .drive_extensions()
        .echo();
    for (key, secret, identifier) in &options.devices {
        builder = builder.device_key(key, secret, identifier);
    }
    if !options.extensions {
        builder = builder.advertise(None);
    }
    if let Some(host) = &options.host {
        builder = builder.store_host(host);
    }
    builder = secure(options, builder)?;
    builder.try_start().map_err(|error| {
        format!(
            "cannot listen on {} or {}: {error}",
            options.listen, options.firmware_listen
        )
    })
}

/// Certificates and authorities, from the state folder or from files.
fn secure(options: &Options, mut builder: Builder) -> Result<Builder, String> {
    let client_certificates = options.mtls || options.mtls_ca.is_some();
    if options.tls == Tls::Plain && client_certificates {
        return Err("client certificates need --tls or --tls12".into());
    }
    if options.tls != Tls::Plain {
        let ca = state_dir::ca(&options.state, "server")?;
        let mut names = vec!["localhost", "127.0.0.1", "::1"];
        names.extend(options.host.as_deref());
        builder = builder
            .tls(options.tls)
            .identity(ca.server_for(&names))
            .ca(ca);
    }
    if let Some(file) = &options.mtls_ca {
        return Ok(builder.mtls_pem(&state_dir::read(file)?));
    }
    match options.mtls {
        true => Ok(builder.mtls(&state_dir::ca(&options.state, "device")?)),
        false => Ok(builder),
    }
}

fn announce(options: &Options, hub: &Hub, control: &Control) {
    println!("# device socket {}", hub.url());
    println!("# firmware      {}", hub.http_url());
    println!("# control       http://{}", control.address());
    println!("# to connect an agent:");
    let url = match &options.host {
        Some(host) => {
            let url = hub.url();
            let scheme = url.split("://").next().unwrap_or("ws");
            format!("{scheme}://{host}:{}", hub.port())
        }
        None => hub.url(),
    };
    println!("NERVES_HUB_HOST={url}");
    println!("NERVES_HUB_PRODUCT_KEY={}", options.product.0);
    println!("NERVES_HUB_PRODUCT_SECRET={}", options.product.1);
    match options.tls {
        Tls::Plain => println!("NERVES_HUB_ALLOW_INSECURE=true"),
        _ => {
            let file = absolute(&options.state).join("server-ca.crt");
            println!("NERVES_HUB_CA_FILE={}", file.display());
        }
    }
    if options.mtls {
        println!(
            "# client certificates: hub cert NAME --state {}",
            options.state.display()
        );
    }
    println!("# ready");
}
