//! `mkfw`: makes one firmware archive for a demo or a benchmark and prints a JSON summary of it.

use fwup_standin::archive::{Builder, Compression, Content, read_private_key};

const USAGE: &str = "\
Usage: mkfw --key signing-key.priv [OPTION]... OUT.fw

  --key <file>             Sign with this key (64 bytes, raw or base64)
  --unsigned               Do not sign
  --version-string <v>     Version of the firmware (1.0.0)
  --size <n>[K|M|G]        Size of the generated image (1M)
  --seed <n>               Another seed gives another image (1)
  --content <file>         Use this file as the image instead
  --compressible           Generate an image that compresses by half, and deflate it
  --deflate <level>        Deflate (1 to 9) instead of storing
  --product, --platform, --architecture, --misc, --extra-conf <text>
";

#[derive(Default)]
struct Options {
    key: Option<String>,
    unsigned: bool,
    compressible: bool,
    texts: Vec<(String, String)>,
    out: Option<String>,
}

fn main() {
    match run() {
        Ok(()) => {}
        Err(message) => {
            eprintln!("mkfw: {message}\n\n{USAGE}");
            std::process::exit(1);
        }
    }
}

fn parse() -> Result<Options, String> {
    let mut options = Options::default();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--unsigned" => options.unsigned = true,
            "--compressible" => options.compressible = true,
            name if name.starts_with("--") => {
                let value = args.next().ok_or(format!("{name} needs a value"))?;
                match name {
                    "--key" => options.key = Some(value),
                    _ => options.texts.push((name.to_string(), value)),
                }
            }
            _ => options.out = Some(arg),
        }
    }
    Ok(options)
}

fn run() -> Result<(), String> {
    let options = parse()?;
    let out = options.out.as_deref().ok_or("no output file named")?;
    let mut builder = builder(&options)?;
    match &options.key {
        Some(path) if !options.unsigned => {
            let key = read_private_key(path).map_err(|error| format!("{path}: {error}"))?;
            builder = builder.sign_with(&key);
        }
        None if !options.unsigned => return Err("neither --key nor --unsigned given".into()),
        _ => {}
    }
    let summary = builder
        .write_to(out)
        .map_err(|error| format!("{out}: {error}"))?;
    println!("{:#}", summary.to_json());
    Ok(())
}

fn builder(options: &Options) -> Result<Builder, String> {
    let mut version = "1.0.0".to_string();
    let (mut len, mut seed, mut file) = (1 << 20, 1, None);
    let mut compression = match options.compressible {
        true => Compression::Deflate(6),
        false => Compression::Stored,
    };
    let mut later = Vec::new();
    for (name, value) in &options.texts {
        match name.as_str() {
            "--version-string" => version = value.clone(),
            "--size" => len = size(value)?,
            "--seed" => seed = number(value)?,
            "--content" => file = Some(value.into()),
            "--deflate" => compression = Compression::Deflate(number(value)? as u8),
            _ => later.push((name.as_str(), value.as_str())),
        }
    }
    let content = match (file, options.compressible) {
        (Some(path), _) => Content::File(path),
        (None, true) => Content::Compressible { seed, len },
        (None, false) => Content::Random { seed, len },
    };
    let mut builder = Builder::new(&version)
        .resource(content)
        .compression(compression);
    for (name, value) in later {
        builder = match name {
            "--product" => builder.product(value),
            "--platform" => builder.platform(value),
            "--architecture" => builder.architecture(value),
            "--misc" => builder.misc(value),
            "--extra-conf" => builder.extra_conf(value),
            _ => return Err(format!("unknown option {name}")),
        };
    }
    Ok(builder)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("'{text}' is not a number"))
}

fn size(text: &str) -> Result<u64, String> {
    let units = [("K", 10), ("M", 20), ("G", 30)];
    for (suffix, shift) in units {
        if let Some(digits) = text.strip_suffix(suffix) {
            return Ok(number(digits)? << shift);
        }
    }
    number(text)
}
