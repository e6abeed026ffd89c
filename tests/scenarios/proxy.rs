//! Through a CONNECT proxy: the socket and the downloads, with and without a password, and
//! around it.

use std::net::SocketAddr;

use devhub::certs::Ca;
use devhub::proxy::Proxy;
use devhub::{Hub, Tls};

use crate::rig::{self, Device, JOINED, demo};

fn device_behind(hub: &Hub, proxy: &str) -> Device {
    let mut device = Device::new(hub);
    device.set("PROXY", proxy);
    device
}

fn targets(proxy: &Proxy) -> Vec<String> {
    let connects = proxy.connects();
    assert!(connects.iter().all(|each| each.method == "CONNECT"));
    connects.into_iter().map(|each| each.target).collect()
}

fn update(hub: &Hub, device: &Device) {
    hub.expect_join("device");
    hub.offer(&demo(hub));
    hub.expect_status("completed");
    device.assert_image_of("demo-2.0.0.fw");
}

#[test]
fn the_socket_and_downloads_go_through_the_proxy() {
    let hub = rig::hub().start();
    let proxy = Proxy::start();
    let device = device_behind(&hub, &proxy.url());
    let _agent = device.start();
    update(&hub, &device);
    let expected = [
        format!("127.0.0.1:{}", hub.port()),
        format!("127.0.0.1:{}", hub.store().address().port()),
    ];
    assert_eq!(targets(&proxy), expected);
    let connects = proxy.connects();
    let has_password = |(name, _): &(String, String)| name == "proxy-authorization";
    assert!(
        !connects
            .iter()
            .any(|each| each.headers.iter().any(has_password))
    );
}

#[test]
fn names_are_looked_up_by_the_proxy_and_tls_ends_at_the_hub() {
    let ca = Ca::new("hub CA");
    let identity = ca.server_for(&["hub.example", "files.example"]);
    let hub = rig::hub()
        .tls(Tls::Server)
        .ca(ca)
        .identity(identity)
        .store_host("files.example")
        .start();
    let store_port = hub.store().address().port();
    let loopback = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let files = format!("files.example:{store_port}");
    let proxy = Proxy::builder()
        .basic("fleet", "p@ss:word")
        .map("hub.example:443", loopback(hub.port()))
        .map(&files, loopback(store_port))
        .start();
    let mut device = device_behind(&hub, &proxy.url_with("fleet", "p%40ss:word"));
    device.set("HOST", "hub.example");
    let agent = device.start();
    update(&hub, &device);
    assert_eq!(targets(&proxy), ["hub.example:443".to_owned(), files]);
    let tls = hub.upgrades()[0].tls.clone().expect("TLS");
    assert_eq!(tls.server_name.as_deref(), Some("hub.example"));
    assert_eq!(hub.upgrades()[0].header("proxy-authorization"), None);
    assert!(agent.logged("ss:word").is_empty());
}

#[test]
fn a_wrong_or_missing_password_is_told_and_retried() {
    let hub = rig::hub().start();
    let proxy = Proxy::builder().basic("fleet", "right").start();
    for url in [proxy.url(), proxy.url_with("fleet", "wr0ng-one")] {
        let device = device_behind(&hub, &url);
        let agent = device.start();
        let text = "wants other credentials (407); see NERVES_HUB_PROXY; next attempt in";
        agent.wait_log_times(text, 2);
        assert!(agent.logged("wr0ng-one").is_empty());
    }
    assert!(proxy.connects().iter().all(|each| each.status == 407));
    assert_eq!(hub.tcp_connections(), 0);
    let device = device_behind(&hub, &proxy.url_with("fleet", "right"));
    let _agent = device.start();
    hub.expect_join("device");
}

#[test]
fn the_system_s_proxy_is_used_unless_told_otherwise() {
    let hub = rig::hub().start();
    let proxy = Proxy::start();
    for (name, value, used) in [
        ("https_proxy", None, true),
        ("HTTPS_PROXY", None, true),
        ("https_proxy", Some(("no_proxy", "127.0.0.1")), false),
        ("https_proxy", Some(("NO_PROXY", "example.com, *")), false),
        (
            "https_proxy",
            Some(("no_proxy", "127.0.0.2,example.com")),
            true,
        ),
        ("https_proxy", Some(("NERVES_HUB_PROXY", "none")), false),
    ] {
        let before = proxy.connects().len();
        let mut device = Device::new(&hub);
        device.env.insert(name.to_owned(), proxy.url());
        if let Some((name, value)) = value {
            device.env.insert(name.to_owned(), value.to_owned());
        }
        let agent = device.start();
        agent.wait_log(JOINED);
        let through = proxy.connects().len() - before;
        assert_eq!(through, usize::from(used), "{name} {value:?}");
    }
}

#[test]
fn downloads_may_bypass_the_proxy_that_the_socket_uses() {
    let hub = rig::hub().tls(Tls::Server).plain_store().start();
    let proxy = Proxy::start();
    let mut device = device_behind(&hub, &proxy.url());
    device
        .env
        .insert("no_proxy".to_owned(), "127.0.0.1".to_owned());
    let _agent = device.start();
    update(&hub, &device);
    assert_eq!(targets(&proxy), [hub.host_port()]);
}

#[test]
fn a_proxy_that_refuses_breaks_or_disappears_is_survived() {
    let hub = rig::hub().start();
    let proxy = Proxy::start();
    proxy.refuse(Some(502));
    let device = device_behind(&hub, &proxy.url());
    let agent = device.start();
    agent.wait_log_times(
        "refused CONNECT: \"HTTP/1.1 502 Bad Gateway\"; next attempt in",
        2,
    );
    proxy.refuse(None);
    agent.wait_log(JOINED);
    hub.expect_join("device");
    proxy.cut();
    hub.expect_join("device");
    assert_eq!(hub.connections(), 2);
    agent.wait_log_times(JOINED, 2);
    let address = proxy.address();
    drop(proxy);
    agent.wait_log(&format!("127.0.0.1 ({address}): Connection refused"));
}

#[test]
fn a_proxy_that_hangs_or_talks_nonsense_meets_its_deadline() {
    let hub = rig::hub().start();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listener");
    let address = listener.local_addr().expect("address");
    let mut device = device_behind(&hub, &format!("http://{address}"));
    device.set("UPGRADE_TIMEOUT", "300ms");
    let agent = device.start();
    // Accepted by the kernel only; nobody ever answers.
    agent.wait_log_times("timed out; next attempt in", 2);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            use std::io::Write as _;
            let _ = stream.write_all(&[b'z'; 64 * 1024]);
        }
    });
    agent.wait_log("no HTTP answer to CONNECT; next attempt in");
    assert_eq!(hub.tcp_connections(), 0);
}
