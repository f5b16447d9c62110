//! Behind nginx, which holds requests back until they end.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::pair::{Agent, Gateway, arrives, eventually, settings, texts};

struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn nginx(dir: &std::path::Path, port: u16, gateway: std::net::SocketAddr) -> Option<Nginx> {
    let config = format!(
        "daemon off; master_process off; pid {0}/nginx.pid; error_log {0}/error.log;\n\
         events {{ worker_connections 64; }}\n\
         http {{ access_log off; client_body_temp_path {0}/body; proxy_temp_path {0}/proxy; fastcgi_temp_path {0}/f; \
         uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;\n\
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://{gateway}; }} }} }}\n",
        dir.display()
    );
    let file = dir.join("nginx.conf");
    std::fs::write(&file, config).expect("written");
    let child = Command::new("nginx").arg("-c").arg(&file).arg("-p").arg(dir).stderr(Stdio::null()).spawn();
    child.ok().map(Nginx)
}

#[tokio::test]
async fn behind_a_proxy_that_buffers_finite_requests_carry_everything() {
    let dir = tempfile::tempdir().expect("a folder");
    let gateway = Gateway::start(&dir.path().join("gateway")).await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let Some(_nginx) = nginx(dir.path(), port, gateway.addr) else {
        println!("skipped: nginx is not installed");
        return;
    };
    eventually("nginx listens", async || {
        let there = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
        (there.is_ok(), there.err())
    })
    .await;
    let agent = Agent::with(&dir.path().join("agent"), settings(([127, 0, 0, 1], port).into())).await;
    agent.publish(0..3000).await;
    arrives(&gateway, &texts(0..3000)).await;
    assert_eq!(agent.uplink.status()["mode"], "finite");
    agent.publish(3000..3010).await;
    arrives(&gateway, &texts(0..3010)).await;
    eventually("the account", async || (agent.consumer().done.delivered == 3010, agent.consumer())).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(gateway.agent()["link"]["state"], "up");
}
