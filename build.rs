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
        prefer_own_backtrace(&target);
        fold_identical_code(&target);
        pack_relocations(&target);
    }
    if target.contains("-linux-") {
        do_without_p256_table();
    }
    println!("cargo::rustc-check-cfg=cfg(small_p256)");
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

/// What src/system/backtrace.rs stands in for is in a static runtime too.
fn prefer_own_backtrace(target: &str) {
    if is_static(target) {
        link_with("-Wl,--allow-multiple-definition");
    }
}

/// Whether the C library becomes part of the binary. Cargo does not tell of targets where
/// that is the default.
fn is_static(target: &str) -> bool {
    compiler(target)
        .args(["--print", "cfg"])
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("crt-static"))
}

/// The compiler, set as it will be for the binary.
fn compiler(target: &str) -> Command {
    let mut compiler = rustc();
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    compiler.args(flags.split('\x1f').filter(|flag| !flag.is_empty()));
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        compiler.arg(format!("-Clinker={linker}"));
    }
    compiler.args(["--target", target]);
    compiler
}

fn rustc() -> Command {
    Command::new(env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned()))
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
    compiler(target)
        .args(["--out-dir", &folder])
        .arg(format!("-Clink-arg={argument}"))
        .arg(source)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// What src/system/p256.rs stands in for, whatever the profile: so scenarios run on it too.
/// Its names are those of one release of ring, for 64-bit processors: others keep the table,
/// or have none.
fn do_without_p256_table() {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let is_known = std::fs::read_to_string("Cargo.lock")
        .is_ok_and(|lock| lock.contains("name = \"ring\"\nversion = \"0.17.14\"\n"));
    if is_known && matches!(arch.as_str(), "x86_64" | "aarch64") {
        println!("cargo::rustc-cfg=small_p256");
        for function in ["p256_point_mul_base", "p256_point_mul_base_vartime"] {
            link_with(&format!("-Wl,--wrap=ring_core_0_17_14__{function}"));
        }
    }
}

/// Relative relocations in the packed form are a twentieth of the file smaller. What loads
/// the program must know that form: glibc does from 2.36 on, which can be told for this
/// machine only. Static builds load themselves, with the musl that comes with Rust: 1.2.5
/// since Rust 1.93.
fn pack_relocations(target: &str) {
    let is_native = env::var("HOST").as_deref() == Ok(target);
    let is_understood = if is_static(target) {
        target.contains("-musl") && brings_its_own_musl()
    } else {
        target.ends_with("-linux-gnu")
            && is_native
            && glibc_version().is_some_and(|version| version >= (2, 36))
    };
    if is_understood {
        link_with("-Wl,-z,pack-relative-relocs");
    }
}

fn brings_its_own_musl() -> bool {
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    !flags.contains("link-self-contained") && rust_version().is_some_and(|it| it >= (1, 93))
}

/// As in `rustc 1.95.0 (59807616e 2026-04-14)`.
fn rust_version() -> Option<(u32, u32)> {
    let output = rustc().arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    major_and_minor(text.strip_prefix("rustc ")?)
}

/// Of this machine, as in `glibc 2.36`.
fn glibc_version() -> Option<(u32, u32)> {
    let output = Command::new("getconf")
        .arg("GNU_LIBC_VERSION")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    major_and_minor(text.trim().strip_prefix("glibc ")?)
}

/// Of `2.36` or `1.95.0 (…)`.
fn major_and_minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
