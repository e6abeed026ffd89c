//! LEDs made of plain files, and commands that do not end.

use super::*;
use std::sync::mpsc;

const SECOND: Duration = Duration::from_secs(1);

fn led(leds: &Path, name: &str, trigger: &str, brightness: &str) -> PathBuf {
    let led = leds.join(name);
    fs::create_dir_all(&led).unwrap();
    for (file, text) in [
        ("trigger", trigger),
        ("brightness", brightness),
        ("max_brightness", "255"),
        ("delay_on", "0"),
        ("delay_off", "0"),
    ] {
        fs::write(led.join(file), text).unwrap();
    }
    led
}

fn site(leds: &Path, led: Led, command: Option<&str>) -> Site {
    let command = command.map(str::to_owned);
    Site {
        leds: leds.to_owned(),
        ..Site::new(
            &IdentifySettings { command, led },
            "device-1",
            hook::Site::default(),
        )
    }
}

fn is_in(led: &Path, file: &str, text: &str) -> bool {
    read(led, file).is_ok_and(|read| read == text)
}

/// Shows the device on another thread and waits until `seen`; then either cancels or lets
/// it go on to its end.
fn show(site: &Site, cancelled: bool, seen: impl Fn() -> bool) {
    let cancel = Cancel::new().unwrap();
    let (site, other) = (site.clone(), cancel.clone());
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || done.send(run(&site, &other)));
    let deadline = Instant::now() + 20 * SECOND;
    while !seen() {
        assert!(Instant::now() < deadline, "not seen");
        std::thread::yield_now();
    }
    if cancelled {
        cancel.cancel();
    }
    ended.recv_timeout(20 * SECOND).expect("an end").unwrap();
}

#[test]
fn the_kernel_blinks_and_the_trigger_is_given_back() {
    for cancelled in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let led = led(folder.path(), "status", "none [heartbeat] timer", "0");
        let mut site = site(folder.path(), Led::Named("status".into()), None);
        site.show = if cancelled { 1000 * SECOND } else { SECOND };
        show(&site, cancelled, || {
            is_in(&led, "trigger", "timer") && is_in(&led, "delay_off", "250")
        });
        assert!(is_in(&led, "trigger", "heartbeat"));
        // Its trigger's business.
        assert!(is_in(&led, "brightness", "0"));
    }
}

#[test]
fn without_the_kernel_s_help_it_blinks_all_the_same_and_the_brightness_is_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let led = led(folder.path(), "status", "[none] default-on", "7");
    let site = site(folder.path(), Led::Named(led.clone()), None);
    let seen = std::cell::Cell::new((false, false));
    show(&site, true, || {
        let (on, off) = seen.get();
        let on = on || is_in(&led, "brightness", "255");
        seen.set((on, off || (on && is_in(&led, "brightness", "0"))));
        seen.get() == (true, true)
    });
    assert!(is_in(&led, "brightness", "7"));
    assert!(is_in(&led, "trigger", "none"));
}

#[test]
fn a_timer_gets_its_own_delays_back() {
    let folder = tempfile::tempdir().unwrap();
    let led = led(folder.path(), "status", "none [timer]", "1");
    fs::write(led.join("delay_on"), "900").unwrap();
    fs::write(led.join("delay_off"), "100").unwrap();
    let site = site(folder.path(), Led::Named("status".into()), None);
    show(&site, true, || is_in(&led, "delay_on", "250"));
    assert!(is_in(&led, "trigger", "timer"));
    assert!(is_in(&led, "delay_on", "900") && is_in(&led, "delay_off", "100"));
}

#[test]
fn an_led_is_chosen_by_its_name_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let leds = folder.path();
    assert_eq!(choose(&leds.join("none")), None);
    for name in ["input3::capslock", "mmc0::status", "red:power", "modem"] {
        led(leds, name, "[none]", "0");
    }
    assert_eq!(choose(leds), None);
    fs::create_dir(leds.join("status-without-brightness")).unwrap();
    assert_eq!(choose(leds), None);
    led(leds, "ACT", "[mmc0]", "0");
    assert_eq!(choose(leds), Some(leds.join("ACT")));
    led(leds, "green:status", "[none]", "0");
    led(leds, "blue:status", "[none]", "0");
    assert_eq!(choose(leds), Some(leds.join("blue:status")));
}

#[test]
fn what_cannot_be_shown_ends_at_once_and_makes_no_files() {
    let folder = tempfile::tempdir().unwrap();
    for led in [Led::None, Led::Auto, Led::Named("gone".into())] {
        show(&site(folder.path(), led, None), false, || true);
    }
    fs::create_dir(folder.path().join("bare")).unwrap();
    show(
        &site(folder.path(), Led::Named("bare".into()), None),
        false,
        || true,
    );
    assert_eq!(fs::read_dir(folder.path().join("bare")).unwrap().count(), 0);
}

#[test]
fn a_command_that_hangs_is_killed_with_all_it_started() {
    for cancelled in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let pids = folder.path().join("pids");
        let text = format!(
            "trap '' TERM; sleep 1000 & echo $NERVES_HUB_DEVICE_IDENTIFIER $! $$ > {}; wait",
            pids.display()
        );
        let mut site = site(folder.path(), Led::Auto, Some(&text));
        site.command_limit = if cancelled { 1000 * SECOND } else { SECOND };
        let said = || fs::read_to_string(&pids).unwrap_or_default();
        show(&site, cancelled, || said().ends_with('\n'));
        let said = said();
        let mut words = said.split_whitespace();
        assert_eq!(words.next(), Some("device-1"));
        let deadline = Instant::now() + 20 * SECOND;
        for pid in words {
            let stat = || fs::read_to_string(format!("/proc/{pid}/stat"));
            while stat().is_ok_and(|stat| !stat.contains(") Z ")) {
                assert!(Instant::now() < deadline, "{pid} lives");
                std::thread::yield_now();
            }
        }
    }
}
