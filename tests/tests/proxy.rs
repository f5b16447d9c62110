//! Promise: where a proxy on the way buffers requests, the agent finds out and sends one finite request a batch.

use std::time::Duration;

use anyhow::Result;
use godwit_tests::lab::{self, Lab};
use godwit_tests::load::{Load, Plan};
use godwit_tests::need;
use godwit_tests::pair::Pair;
use godwit_tests::ports;
use godwit_tests::process::{Line, Process};

const SETTLE: Duration = Duration::from_secs(40);

/// nginx as Debian sets it up: requests are read to their end before they are passed on, by HTTP/1.1.
fn nginx(lab: &Lab, port: u16, to: std::net::SocketAddr) -> Result<Process> {
    let folder = lab.folder("nginx")?;
    let folder = folder.display();
    let config = format!(
        "daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{}}\nhttp {{\n\
         access_log off;\nclient_body_temp_path {folder}/body;\nproxy_temp_path {folder}/proxy;\n\
         fastcgi_temp_path {folder}/f;\nuwsgi_temp_path {folder}/u;\nscgi_temp_path {folder}/s;\n\
         server {{\nlisten 127.0.0.1:{port} http2;\nlocation / {{\nproxy_pass http://{to};\nproxy_http_version 1.1;\n\
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

#[test]
fn behind_nginx_that_buffers_everything_arrives() -> Result<()> {
    need!("behind_nginx_that_buffers_everything_arrives", "nginx");
    lab::run(|lab| {
        let mut pair = Pair::new(lab)?;
        let port = ports::free();
        let _nginx = nginx(lab, port, pair.gateway.http())?;
        pair.agent.uplink(([127, 0, 0, 1], port).into());
        pair.gateway.start()?;
        pair.agent.start()?;
        let mut plan = Plan::new(pair.agent.mqtt());
        (plan.clients, plan.count, plan.rate) = (3, 2000, 200);
        let load = Load::start(plan);
        // The agent waits 10 s for a hello before it takes the path for a buffering one.
        let records = load.wait_count(SETTLE)?;
        println!("behind nginx: {}", pair.settled(&records, SETTLE)?);
        Ok(())
    })
}
