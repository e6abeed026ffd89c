//! Embeds the build time, the earliest date the device clock can truthfully show, and makes
//! release binaries small. `SOURCE_DATE_EPOCH` (seconds) makes builds reproducible.
use std::env;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let epoch = env::var("SOURCE_DATE_EPOCH")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok())
        .unwrap_or_else(|| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs())
        });
    println!("cargo::rustc-env=BUILD_EPOCH={epoch}");
    let target = env::var("TARGET").unwrap_or_default();
    println!("cargo::rustc-env=BUILD_TARGET={target}");
    if env::var("PROFILE").as_deref() == Ok("release") && target.contains("-linux-") {
        drop_unwind_tables();
        let statically = env::var("CARGO_CFG_TARGET_FEATURE")
            .is_ok_and(|features| features.split(',').any(|feature| feature == "crt-static"));
        if statically {
            prefer_own_backtrace();
        }
        fold_identical_code(&target);
        pack_relocations(&target);
    }
    println!("cargo::rerun-if-changed=scripts/release.ld");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.lock");
}

fn link_with(argument: &str) {
    println!("cargo::rustc-link-arg-bins={argument}");
}

/// Release builds neither unwind nor print backtraces: leave the tables for both out.
fn drop_unwind_tables() {
    let folder = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    link_with(&format!("-Wl,-T,{folder}/scripts/release.ld"));
    link_with("-Wl,--no-eh-frame-hdr");
}

/// What src/system/backtrace.rs stands in for is in a static C runtime too.
fn prefer_own_backtrace() {
    link_with("-Wl,--allow-multiple-definition");
}

/// Of functions that came out the same, one stays. Rust gives functions no address of their
/// own, so nothing can tell. Only some linkers do this, Rust's own for x86_64 among them.
fn fold_identical_code(target: &str) {
    const FOLD: &str = "-Wl,--icf=all";
    if linker_takes(target, FOLD) {
        link_with(FOLD);
    }
}

/// Asked by trying: which linker it is, is known to the compiler alone.
fn linker_takes(target: &str, argument: &str) -> bool {
    let folder = env::var("OUT_DIR").unwrap_or_default();
    let source = Path::new(&folder).join("probe.rs");
    if std::fs::write(&source, "fn main() {}").is_err() {
        return false;
    }
    let mut rustc = Command::new(env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned()));
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    rustc.args(flags.split('\x1f').filter(|flag| !flag.is_empty()));
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg(format!("-Clinker={linker}"));
    }
    rustc
        .args(["--target", target, "--out-dir", &folder])
        .arg(format!("-Clink-arg={argument}"))
        .arg(source)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Relative relocations in the packed form are a twentieth of the file smaller. The loader
/// must know that form: glibc does from 2.36 on, which can be told for this machine only.
fn pack_relocations(target: &str) {
    let is_native = env::var("HOST").as_deref() == Ok(target);
    if is_native
        && target.ends_with("-linux-gnu")
        && glibc_version().is_some_and(|version| version >= (2, 36))
    {
        link_with("-Wl,-z,pack-relative-relocs");
    }
}

/// Of this machine, as in `glibc 2.36`.
fn glibc_version() -> Option<(u32, u32)> {
    let output = Command::new("getconf")
        .arg("GNU_LIBC_VERSION")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
