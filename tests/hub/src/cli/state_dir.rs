//! The folder that keeps CAs and certificates between runs of the hub.

use super::{CERT_HELP, say, text, unexpected};
use devhub::certs::{Ca, Identity};
use lexopt::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};

pub const DEFAULT: &str = ".hub";

/// The CA of that name: read from the folder, or made and kept there.
pub fn ca(folder: &Path, name: &str) -> Result<Ca, String> {
    let common_name = format!("devhub {name} CA");
    let (cert, key) = (
        folder.join(format!("{name}-ca.crt")),
        folder.join(format!("{name}-ca.key")),
    );
    if cert.exists() {
        return Ca::load(&common_name, read(&cert)?, &read(&key)?);
    }
    let ca = Ca::new(&common_name);
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    write(&key, ca.key_pem())?;
    write(&cert, ca.cert_pem())?;
    Ok(ca)
}

/// `hub cert`.
pub fn cert(mut parser: lexopt::Parser) -> Result<(), String> {
    let (mut name, mut folder) = (None, PathBuf::from(DEFAULT));
    while let Some(argument) = parser.next().map_err(text)? {
        match argument {
            Short('h') | Long("help") => return say(CERT_HELP),
            Long("state") => folder = parser.value().map_err(text)?.into(),
            Value(value) if name.is_none() => name = Some(value.string().map_err(text)?),
            other => return Err(unexpected(other)),
        }
    }
    let name = name.ok_or("cert needs the NAME of a device; see hub cert --help")?;
    if name.contains('/') {
        return Err(format!("{name}: a name must not contain a slash"));
    }
    let Identity { cert_pem, key_pem } = ca(&folder, "device")?.client(&name);
    let (cert, key) = (
        folder.join(format!("{name}.crt")),
        folder.join(format!("{name}.key")),
    );
    write(&cert, &cert_pem)?;
    write(&key, &key_pem)?;
    println!("NERVES_HUB_CERT_FILE={}", absolute(&cert).display());
    println!("NERVES_HUB_KEY_FILE={}", absolute(&key).display());
    Ok(())
}

/// For settings that are used from another folder.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

pub fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

pub fn write(file: &Path, contents: &str) -> Result<(), String> {
    fs::write(file, contents).map_err(|error| format!("{}: {error}", file.display()))
}
