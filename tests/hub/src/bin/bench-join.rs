//! `bench-join`: how long an agent takes from its exec to the hub's reply to the device
//! join; a line in milliseconds per run, for scripts/bench-start. Hub in this process.

use devhub::{Dir, Hub, Tls, Transcript};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const USAGE: &str = "usage: bench-join ws|wss RUNS AGENT FWUP";
/// A run that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);
const KEY: &str = "nhp_bench";
const SECRET: &str = "bench-secret";
const METADATA: &str = "nerves_fw_active=a\na.nerves_fw_product=demo\na.nerves_fw_version=0.0.1\n\
    a.nerves_fw_uuid=00000000-0000-5000-8000-000000000001\na.nerves_fw_platform=demo-board\n\
    a.nerves_fw_architecture=x86_64\nnerves_serial_number=bench-device\n";

/// Killed and reaped even when a wait panics.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have gone by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [scheme, runs, agent, fwup] = arguments.as_slice() else {
        return Err(USAGE.into());
    };
    let runs: u32 = runs.parse().map_err(|_| USAGE)?;
    let tls = match scheme.as_str() {
        "ws" => Tls::Plain,
        "wss" => Tls::Server,
        _ => return Err(USAGE.into()),
    };
    let folder = std::env::temp_dir().join(format!("bench-join.{}", std::process::id()));
    std::fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let result = measure(tls, runs, agent, fwup, &folder);
    // Only a temporary folder is left behind.
    let _ = std::fs::remove_dir_all(&folder);
    result
}

fn measure(tls: Tls, runs: u32, agent: &str, fwup: &str, folder: &Path) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let hub = Hub::builder()
        .product(KEY, SECRET)
        .tls(tls)
        .deadline(PATIENCE);
    let hub = hub.advertise(None).start();
    let (metadata, ca) = (folder.join("metadata"), folder.join("ca.pem"));
    std::fs::write(&metadata, METADATA).map_err(text)?;
    std::fs::write(&ca, hub.ca_pem()).map_err(text)?;
    let mut command = Command::new(agent);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("NERVES_HUB_HOST", hub.url())
        .env("NERVES_HUB_ALLOW_INSECURE", "1")
        .env("NERVES_HUB_CA_FILE", &ca)
        .env("NERVES_HUB_PRODUCT_KEY", KEY)
        .env("NERVES_HUB_PRODUCT_SECRET", SECRET)
        .env("NERVES_HUB_FWUP_PATH", fwup)
        .env("NERVES_HUB_REBOOT_FORCE", "0")
        .env("NERVES_HUB_DATA_PATH", folder.join("data"))
        .env(
            "NERVES_HUB_FIRMWARE_METADATA",
            format!("file:{}", metadata.display()),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // The first run warms the caches and does not count.
    for run in 0..=runs {
        let before = replies(&hub.transcript());
        let start = Instant::now();
        let agent = Agent(command.spawn().map_err(text)?);
        let joined = |transcript: &Transcript| (replies(transcript) > before).then(Instant::now);
        let took = hub.wait(joined, PATIENCE) - start;
        drop(agent);
        hub.expect_offline();
        if run > 0 {
            println!("{:.2}", took.as_secs_f64() * 1000.0);
        }
    }
    Ok(())
}

/// The good replies to joins of the device topic so far.
fn replies(transcript: &Transcript) -> usize {
    let frames = transcript
        .entries
        .iter()
        .filter(|entry| entry.dir == Dir::Server)
        .filter_map(|entry| entry.frame.as_ref());
    frames
        .filter(|frame| frame.topic == "device" && frame.event == "phx_reply")
        .filter(|frame| frame.payload["status"] == "ok")
        .count()
}
