//! The harness itself, tried on Debian's mosquitto and on small servers, so that a failing proof is not the harness's fault.

use std::time::Duration;

use anyhow::Result;
use godwit_tests::data;
use godwit_tests::http;
use godwit_tests::lab;
use godwit_tests::load::{Load, Plan};
use godwit_tests::mosquitto::Mosquitto;
use godwit_tests::need;
use godwit_tests::net::Namespace;
use godwit_tests::relay::{Relay, Way};
use godwit_tests::sink::Sink;
use godwit_tests::wait;

const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn clients_come_back_after_cuts_and_every_publish_is_acknowledged() -> Result<()> {
    need!("clients_come_back_after_cuts_and_every_publish_is_acknowledged", "mosquitto");
    lab::run(|lab| {
        let mosquitto = Mosquitto::start(lab, "mosquitto")?;
        let relay = Relay::start(mosquitto.address)?;
        let mut plan = Plan::new(relay.address());
        (plan.clients, plan.exact, plan.count, plan.rate) = (4, 2, 300, 1000);
        let load = Load::start(plan);
        for cut in 1..=3 {
            wait::at_least("publishes are acknowledged", LIMIT, cut * 200, || Ok(load.acknowledged()))?;
            relay.cut();
        }
        let records = load.wait_count(LIMIT)?;
        for record in &records {
            assert_eq!(record.acknowledged.len(), 300, "{record:?}");
        }
        assert!(relay.connections() > 4);
        assert!(relay.bytes(Way::Up) > 4 * 300 * 256);
        Ok(())
    })
}

#[test]
fn a_relay_delays_and_holds_and_lets_pass_again() -> Result<()> {
    let sink = Sink::start()?;
    let to = sink.url().trim_start_matches("http://").parse()?;
    let relay = Relay::start(to)?;
    relay.delay(Duration::from_millis(150));
    let begun = std::time::Instant::now();
    assert_eq!(http::request(relay.address(), "POST", "/", &[("ce-id", "1")], b"x")?.status, 202);
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    relay.delay(Duration::ZERO);
    relay.black_hole(true);
    let address = relay.address();
    let waiting = std::thread::spawn(move || http::request(address, "POST", "/", &[("ce-id", "2")], b"y"));
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(sink.deliveries().len(), 1);
    relay.black_hole(false);
    assert_eq!(waiting.join().expect("no panic")?.status, 202);
    let names: Vec<String> = sink.wait(2, LIMIT)?.iter().map(|delivery| delivery.name().0).collect();
    assert_eq!(names, ["1", "2"]);
    Ok(())
}

#[test]
fn a_namespace_is_cut_off_and_comes_back() -> Result<()> {
    need!("a_namespace_is_cut_off_and_comes_back", root, "ip", "nft", "mosquitto");
    let namespace = Namespace::new(200)?;
    let reach = |namespace: &Namespace| {
        let words = namespace.words();
        let mut ping = std::process::Command::new(&words[0]);
        let script = format!("timeout 0.5 bash -c 'exec 3<>/dev/tcp/{}/9' 2>&1; true", namespace.outside());
        let output = ping.args(&words[1..]).args(["bash", "-c", &script]).output().expect("bash runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(reach(&namespace).contains("refused"), "{}", reach(&namespace));
    namespace.lose(100)?;
    assert!(!reach(&namespace).contains("refused"), "{}", reach(&namespace));
    namespace.heal()?;
    assert!(reach(&namespace).contains("refused"), "{}", reach(&namespace));
    Ok(())
}

#[test]
fn the_flight_is_there() -> Result<()> {
    let flight = data::flight()?;
    assert_eq!(flight.len(), 2879);
    assert!(flight.windows(2).all(|two| two[0].t_ms <= two[1].t_ms));
    Ok(())
}
