//! Embeds the build time, the earliest date the device clock can truthfully show.
//! `SOURCE_DATE_EPOCH` (seconds) makes builds reproducible.
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let epoch = std::env::var("SOURCE_DATE_EPOCH")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok())
        .unwrap_or_else(|| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs())
        });
    println!("cargo::rustc-env=BUILD_EPOCH={epoch}");
    let target = std::env::var("TARGET").unwrap_or_default();
    println!("cargo::rustc-env=BUILD_TARGET={target}");
    drop_unwind_tables(&target);
    pack_relocations(&target);
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.lock");
}

/// Release builds neither unwind nor print backtraces: leave the tables for both out.
fn drop_unwind_tables(target: &str) {
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    if std::env::var("PROFILE").as_deref() == Ok("release") && target.contains("-linux-") {
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{folder}/scripts/release.ld");
        println!("cargo::rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
    }
    println!("cargo::rerun-if-changed=scripts/release.ld");
}

/// Relative relocations in the packed form are a twentieth of the file smaller. The loader
/// must know that form: glibc does from 2.36 on, which can be told for this machine only.
fn pack_relocations(target: &str) {
    let is_native = std::env::var("HOST").as_deref() == Ok(target);
    if std::env::var("PROFILE").as_deref() == Ok("release")
        && is_native
        && target.ends_with("-linux-gnu")
        && glibc_version().is_some_and(|version| version >= (2, 36))
    {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Of this machine, as in `glibc 2.36`.
fn glibc_version() -> Option<(u32, u32)> {
    let output = std::process::Command::new("getconf")
        .arg("GNU_LIBC_VERSION")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
