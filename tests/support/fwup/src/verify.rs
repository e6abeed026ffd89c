//! `-V`: reads a whole archive and checks every resource, writing nothing.

use crate::conf::Section;
use crate::failure::{Result, fail};
use crate::input::Input;
use crate::meta::{self, Opened, PublicKey};
use crate::output::{Kind, Reporter};
use crate::resource::{Map, expected_hash, hasher, name_of};
use crate::zip::{Entry, ZipReader};

pub fn verify(path: Option<&str>, keys: &[PublicKey], reporter: &Reporter) -> Result<()> {
    let Some(path) = path else {
        return fail("Specify an input firmware file");
    };
    let input = Input::open(Some(path), reporter.framing)?;
    let Opened {
        mut zip,
        conf,
        signed,
    } = meta::open(input, path, keys)?;
    let mut seen: Vec<String> = Vec::new();
    while let Ok(Some(entry)) = zip.next_entry() {
        let name = name_of(&entry.name);
        if !name.is_empty() {
            check_resource(&conf, &name, &seen, &mut zip, &entry)?;
            seen.push(name);
        }
    }
    // The original walks its list from the last resource to the first.
    let resources: Vec<&Section> = conf.named("file-resource").collect();
    for resource in resources.iter().rev() {
        if !seen.contains(&resource.title) {
            return fail(format!("Resource {} not found in archive", resource.title));
        }
    }
    let verdict = match (signed, keys.is_empty()) {
        (true, false) => "Valid archive with a good signature\n",
        (true, true) => {
            "Valid archive with an unverified signature. Specify a public key to authenticate.\n"
        }
        (false, _) => "Valid archive without a signature\n",
    };
    reporter.output(Kind::Success, 0, verdict);
    Ok(())
}

fn check_resource(
    conf: &Section,
    name: &str,
    seen: &[String],
    zip: &mut ZipReader,
    entry: &Entry,
) -> Result<()> {
    let Some(resource) = conf.titled("file-resource", name) else {
        return fail(format!("Can't find file-resource for {name}"));
    };
    if seen.iter().any(|other| other == name) {
        return fail(format!("Processing {name} twice. Archive is corrupt."));
    }
    let map = Map::of(resource);
    let differs = entry.size_is_set() && entry.size != map.data_size();
    if differs && map.is_plain() {
        return check_patch(name, resource, zip);
    }
    if differs {
        return fail(format!("ZIP local header length mismatch for {name}"));
    }
    check_content(name, resource, map.data_size(), zip)
}

fn check_content(name: &str, resource: &Section, length: u64, zip: &mut ZipReader) -> Result<()> {
    let mut hash = hasher();
    let mut read = 0;
    while let Some(bytes) = zip.data()? {
        hash.update(bytes);
        read += bytes.len() as u64;
    }
    if read != length {
        return fail(format!("ZIP data length mismatch for {name}"));
    }
    let Some(expected) = expected_hash(resource) else {
        return fail(format!("invalid blake2b-256 hash for '{name}'"));
    };
    if hash.finalize().to_hex().as_str() != expected {
        return fail(format!("Detected blake2b digest mismatch for {name}"));
    }
    Ok(())
}

/// A resource of another size can only be a patch; no more than its first bytes can be checked.
fn check_patch(name: &str, resource: &Section, zip: &mut ZipReader) -> Result<()> {
    if expected_hash(resource).is_none() {
        return fail(format!("invalid blake2b-256 hash for '{name}'"));
    }
    let start = zip.data()?.unwrap_or_default();
    if !start.starts_with(&[0xd6, 0xc3, 0xc4]) {
        return fail("xdelta3 error: not a VCDIFF input");
    }
    Ok(())
}
