//! Building `.fw` archives for tests: like those of `fwup -c`, streamed, of any size, signed or not.

use std::fs::File;
use std::io::{BufWriter, Error, ErrorKind, Read, Result, Write};
use std::path::Path;

use base64::Engine;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::meta::{identity, quoted, timestamp};
pub use crate::pattern::Content;
use crate::resource::hasher;
use crate::zipwrite::{NewEntry, ZipWriter};

const RESOURCE: &str = "rootfs.img";
/// The size of the parts that are hashed one by one.
pub const PART: u64 = 1024 * 1024;
const BUFFER: usize = 64 * 1024;

/// How the resource is kept in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Stored,
    /// Levels 1 to 9.
    Deflate(u8),
}

/// What to put into an archive. The tasks are `upgrade` and `upgrade-fails`.
#[derive(Debug, Clone)]
pub struct Builder {
    meta: Vec<(&'static str, String)>,
    content: Content,
    compression: Compression,
    key: Option<[u8; 64]>,
    created: u32,
    extra_conf: String,
}

/// What came out.
#[derive(Debug, Clone)]
pub struct Summary {
    /// As `fwup -m` reports it: it follows from `meta.conf` and cannot be chosen.
    pub uuid: String,
    pub nickname: String,
    pub size: u64,
    pub sha256_hex_upper: String,
    /// SHA-256 of each part of 1 MiB, upper-case hex.
    pub partials: Vec<String>,
    /// The metadata as an object: product, version, uuid and so on.
    pub meta: Value,
    pub image_size: u64,
    /// Of the resource's bytes; a written image is longer by padding.
    pub image_sha256: String,
}

impl Summary {
    pub fn to_json(&self) -> Value {
        json!({
            "uuid": self.uuid,
            "size": self.size,
            "sha256": self.sha256_hex_upper,
            "partials": self.partials,
            "meta": self.meta,
            "applied_image": {"size": self.image_size, "sha256": self.image_sha256},
        })
    }
}

impl Builder {
    /// A small stored, unsigned archive of this version.
    pub fn new(version: &str) -> Builder {
        Builder {
            meta: vec![
                ("product", "demo".to_string()),
                ("description", "Test firmware for the agent".to_string()),
                ("version", version.to_string()),
                ("author", "Agent tests".to_string()),
                ("platform", "demo-board".to_string()),
                ("architecture", "x86_64".to_string()),
            ],
            content: Content::Random {
                seed: 1,
                len: 64 * 1024,
            },
            compression: Compression::Stored,
            key: None,
            created: 1_795_200_000,
            extra_conf: String::new(),
        }
    }

    fn set(mut self, key: &'static str, value: &str) -> Builder {
        match self.meta.iter_mut().find(|(name, _)| *name == key) {
            Some((_, old)) => *old = value.to_string(),
            None => self.meta.push((key, value.to_string())),
        }
        self
    }

    pub fn product(self, value: &str) -> Builder {
        self.set("product", value)
    }

    pub fn description(self, value: &str) -> Builder {
        self.set("description", value)
    }

    pub fn author(self, value: &str) -> Builder {
        self.set("author", value)
    }

    pub fn platform(self, value: &str) -> Builder {
        self.set("platform", value)
    }

    pub fn architecture(self, value: &str) -> Builder {
        self.set("architecture", value)
    }

    /// Free text; a different one is the way to a different identifier for the same content.
    pub fn misc(self, value: &str) -> Builder {
        self.set("misc", value)
    }

    pub fn vcs_identifier(self, value: &str) -> Builder {
        self.set("vcs-identifier", value)
    }

    /// When it was created, in seconds since 1970.
    pub fn created(mut self, seconds: u32) -> Builder {
        self.created = seconds;
        self
    }

    pub fn resource(mut self, content: Content) -> Builder {
        self.content = content;
        self
    }

    pub fn compression(mut self, compression: Compression) -> Builder {
        self.compression = compression;
        self
    }

    /// Signs with an Ed25519 seed followed by its public key.
    pub fn sign_with(mut self, key: &[u8; 64]) -> Builder {
        self.key = Some(*key);
        self
    }

    /// More `meta.conf` text, in the form fwup emits: further tasks, environments, requirements.
    pub fn extra_conf(mut self, text: &str) -> Builder {
        self.extra_conf += text;
        self
    }

    /// Writes the archive, reading the content twice and keeping none of it.
    pub fn write_to(&self, path: impl AsRef<Path>) -> Result<Summary> {
        let image = Image::of(&self.content)?;
        let conf = self.meta_conf(&image);
        let file = BufWriter::with_capacity(BUFFER, File::create(path)?);
        let mut zip = ZipWriter::new(Hashing::new(file));
        if let Some(key) = &self.key {
            let signature = sign(key, conf.as_bytes())?;
            add_small(&mut zip, "meta.conf.ed25519", &signature, None, None)?;
        }
        let created = Some(self.created);
        add_small(&mut zip, "meta.conf", conf.as_bytes(), created, Some(9))?;
        let entry = NewEntry {
            name: &format!("data/{RESOURCE}"),
            mtime: None,
            size: image.size,
            crc: image.crc,
            level: match self.compression {
                Compression::Stored => None,
                Compression::Deflate(level) => Some(level),
            },
        };
        zip.add(&entry, &mut *self.content.open()?)?;
        Ok(self.summary(zip.finish()?, &conf, image))
    }

    fn meta_conf(&self, image: &Image) -> String {
        let meta: String = self
            .meta
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| format!("meta-{key}={}\n", quoted(value)))
            .collect();
        let version = &self.meta[2].1;
        let upgrading = quoted(&format!("upgrading to {version}"));
        format!(
            "{meta}file-resource \"{RESOURCE}\" {{\nlength={}\nblake2b-256={}\n}}\n\
             task \"upgrade\" {{\non-init {{\nfunlist={{2,info,{upgrading}}}\n}}\n\
             on-finish {{\nfunlist={{2,info,done}}\n}}\n\
             on-resource \"{RESOURCE}\" {{\nfunlist={{2,raw_write,0}}\n}}\n}}\n\
             task \"upgrade-fails\" {{\non-init {{\n\
             funlist={{2,error,\"this task always fails\"}}\n}}\n}}\n{}",
            image.size, image.blake2b, self.extra_conf
        )
    }

    fn summary(&self, written: Hashing, conf: &str, image: Image) -> Summary {
        let (uuid, nickname) = identity(conf.as_bytes());
        let mut meta = json!({
            "creation-date": timestamp(i64::from(self.created)),
            "uuid": uuid,
            "nickname": nickname,
        });
        for (key, value) in &self.meta {
            meta[*key] = json!(value);
        }
        let (size, sha256_hex_upper, partials) = written.finish();
        Summary {
            uuid,
            nickname,
            size,
            sha256_hex_upper,
            partials,
            meta,
            image_size: image.size,
            image_sha256: image.sha256,
        }
    }
}

/// Reads a private key: 64 bytes, raw or as base64.
pub fn read_private_key(path: impl AsRef<Path>) -> Result<[u8; 64]> {
    let path = path.as_ref();
    let bytes = std::fs::read(path)?;
    let decode = |text: &[u8]| {
        let engine = base64::engine::general_purpose::STANDARD;
        engine.decode(text.trim_ascii()).ok()?.try_into().ok()
    };
    let key = bytes.as_slice().try_into().ok().or_else(|| decode(&bytes));
    key.ok_or_else(|| invalid(format!("{} is not a private key", path.display())))
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidData, message)
}

fn sign(key: &[u8; 64], text: &[u8]) -> Result<Vec<u8>> {
    let secret = ed25519_compact::SecretKey::from_slice(key)
        .map_err(|error| invalid(format!("the signing key cannot be used: {error}")))?;
    Ok(secret.sign(text, None).to_vec())
}

fn add_small<W: Write>(
    zip: &mut ZipWriter<W>,
    name: &str,
    bytes: &[u8],
    mtime: Option<u32>,
    level: Option<u8>,
) -> Result<()> {
    let entry = NewEntry {
        name,
        mtime,
        size: bytes.len() as u64,
        crc: crc32fast::hash(bytes),
        level,
    };
    zip.add(&entry, &mut &bytes[..])
}

/// What has to be known of the content before it is written.
struct Image {
    size: u64,
    crc: u32,
    blake2b: String,
    sha256: String,
}

impl Image {
    fn of(content: &Content) -> Result<Image> {
        let mut reader = content.open()?;
        let (mut blake2b, mut sha256) = (hasher(), Sha256::new());
        let mut crc = crc32fast::Hasher::new();
        let (mut size, mut buffer) = (0, vec![0; BUFFER]);
        loop {
            let count = reader.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            let bytes = &buffer[..count];
            blake2b.update(bytes);
            sha256.update(bytes);
            crc.update(bytes);
            size += count as u64;
        }
        Ok(Image {
            size,
            crc: crc.finalize(),
            blake2b: blake2b.finalize().to_hex().to_string(),
            sha256: hex_upper(&sha256.finalize()),
        })
    }
}

fn hex_upper(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Hashes what passes on its way to the file, whole and in parts.
struct Hashing {
    file: BufWriter<File>,
    size: u64,
    whole: Sha256,
    part: Sha256,
    partials: Vec<String>,
}

impl Hashing {
    fn new(file: BufWriter<File>) -> Hashing {
        Hashing {
            file,
            size: 0,
            whole: Sha256::new(),
            part: Sha256::new(),
            partials: Vec::new(),
        }
    }

    fn finish(mut self) -> (u64, String, Vec<String>) {
        if !self.size.is_multiple_of(PART) {
            self.partials.push(hex_upper(&self.part.finalize()));
        }
        (self.size, hex_upper(&self.whole.finalize()), self.partials)
    }
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let room = (PART - self.size % PART).min(bytes.len() as u64) as usize;
        let bytes = &bytes[..room];
        self.file.write_all(bytes)?;
        self.whole.update(bytes);
        self.part.update(bytes);
        self.size += room as u64;
        if self.size.is_multiple_of(PART) {
            let part = std::mem::take(&mut self.part);
            self.partials.push(hex_upper(&part.finalize()));
        }
        Ok(room)
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush()
    }
}
