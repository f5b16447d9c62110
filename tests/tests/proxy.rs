//! Promise: where a proxy on the way buffers requests, the agent finds out and sends one finite request a batch.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use godwit_tests::keys::Keys;
use godwit_tests::lab::{self, Lab};
use godwit_tests::load::{Load, Plan};
use godwit_tests::need;
use godwit_tests::pair::Pair;
use godwit_tests::ports;
use godwit_tests::process::{Line, Process};

const SETTLE: Duration = Duration::from_secs(40);

/// nginx as Debian sets it up: requests are read to their end before they are passed on, by HTTP/1.1.
fn nginx(lab: &Lab, port: u16, to: SocketAddr, keys: Option<&Keys>) -> Result<Process> {
    let listen = keys.map_or_else(
        || format!("listen 127.0.0.1:{port};"),
        |keys| {
            let (certificate, key) = (keys.certificate.display(), keys.key.display());
            format!("listen 127.0.0.1:{port} ssl http2;\nssl_certificate {certificate};\nssl_certificate_key {key};")
        },
    );
    let folder = lab.folder("nginx")?;
    let folder = folder.display();
    let config = format!(
        "daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\nhttp {{\n\
         access_log off;\nclient_body_temp_path {folder}/body;\nproxy_temp_path {folder}/proxy;\n\
         fastcgi_temp_path {folder}/f;\nuwsgi_temp_path {folder}/u;\nscgi_temp_path {folder}/s;\n\
         server {{\n{listen}\nlocation / {{\nproxy_pass http://{to};\nproxy_http_version 1.1;\n\
         proxy_set_header Host $host;\n}}\n}}\n}}\n"
    );
    let config = lab.write("nginx/nginx.conf", &config)?;
    let line = Line {
        program: "/usr/sbin/nginx".into(),
        arguments: vec!["-p".to_owned(), folder.to_string(), "-c".to_owned(), config.display().to_string()],
        ..Line::default()
    };
    Process::start("nginx", &line, &lab.path().join("nginx.log"))
}

fn everything_arrives(lab: &Lab, keys: Option<&Keys>) -> Result<()> {
    let mut pair = Pair::new(lab)?;
    let port = ports::free();
    let _nginx = nginx(lab, port, pair.gateway.http(), keys)?;
    pair.agent.uplink(([127, 0, 0, 1], port).into());
    if let Some(keys) = keys {
        pair.agent.set("gateway.url", &format!("https://localhost:{port}"));
        pair.agent.set("gateway.ca-file", &keys.authority.display().to_string());
    }
    pair.gateway.start()?;
    pair.agent.start()?;
    let mut plan = Plan::new(pair.agent.mqtt());
    (plan.clients, plan.count, plan.rate) = (3, 2000, 200);
    // The agent waits 10 s for a hello before it takes the path for a buffering one.
    let records = Load::start(plan).wait_count(SETTLE)?;
    println!("behind nginx: {}", pair.settled(&records, SETTLE)?);
    Ok(())
}

#[test]
fn behind_nginx_that_speaks_http_1_only() -> Result<()> {
    need!("behind_nginx_that_speaks_http_1_only", "nginx");
    lab::run(|lab| everything_arrives(lab, None))
}

#[test]
fn behind_nginx_that_takes_http_2_by_tls_and_buffers_requests() -> Result<()> {
    need!("behind_nginx_that_takes_http_2_by_tls_and_buffers_requests", "nginx", "openssl");
    lab::run(|lab| everything_arrives(lab, Some(&Keys::make(lab, Ipv4Addr::LOCALHOST.into())?)))
}
