//! The same over TLS.

use std::time::Duration;

use godwit_mesh::door::{ClientTls, ServerTls};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::site::{Plan, Site, connect_v5, puback, publish_v5};

#[tokio::test]
async fn publishes_are_acknowledged_over_tls_and_the_end_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let tls = Some(ServerTls::load(&cert, &key, &[]).expect("a pair"));
    let site = Site::planned(Plan { tls, ..Plan::default() }).await;

    let config = ClientTls::new(Some(&cert)).config(&[]).expect("roots");
    let tcp = TcpStream::connect(site.addr).await.expect("the listener is there");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut stream = TlsConnector::from(config).connect(name, tcp).await.expect("trusted");
    stream.write_all(&connect_v5("secret", true, 0, &[])).await.expect("taken");
    let mut connack = [0; 5];
    stream.read_exact(&mut connack).await.expect("CONNACK");
    assert_eq!((connack[0], connack[3]), (0x20, 0));
    let mut properties = vec![0; usize::from(connack[4])];
    stream.read_exact(&mut properties).await.expect("its properties");

    let burst: Vec<u8> = (1..=500).flat_map(|id| publish_v5("t", 1, id, &[], &[7; 1000])).collect();
    stream.write_all(&burst).await.expect("taken");
    for id in 1..=500u16 {
        let mut ack = [0; 4];
        stream.read_exact(&mut ack).await.expect("PUBACK");
        assert_eq!(ack.to_vec(), puback(id));
    }
    stream.write_all(&[0xf0, 0]).await.expect("taken");
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
    end.expect("in time").expect("a clean close");
    assert_eq!((rest[0], rest[2]), (0xe0, 0x82));
    assert_eq!(site.stored().await.len(), 500);
}
