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
