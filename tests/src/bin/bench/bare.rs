//! The bare peers: a hyper server that only answers 202, as a process of its own, and a loop of write and fdatasync.

use std::convert::Infallible;
use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use godwit_tests::lab::Lab;
use godwit_tests::ports;
use godwit_tests::process::{Line, Process};
use godwit_tests::wait::{self, Seen};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

/// Is the server: reads each request's body, answers 202.
pub(crate) fn serve(port: u16) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                let service = service_fn(answer);
                let _ = hyper::server::conn::http1::Builder::new()
                    .pipeline_flush(true)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    })
}

async fn answer(request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let _ = request.into_body().collect().await;
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// Starts the server.
pub(crate) fn start(lab: &Lab) -> Result<(Process, SocketAddr)> {
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ports::free());
    let line = Line {
        program: std::env::current_exe()?,
        arguments: vec!["--bare-server".to_owned(), address.port().to_string()],
        ..Line::default()
    };
    let process = Process::start("bare", &line, &lab.path().join("bare.log"))?;
    wait::until("the bare server listens", Duration::from_secs(5), || match TcpStream::connect(address) {
        Ok(_) => Seen::Yes(()),
        Err(error) => Seen::NotYet(error.to_string()),
    })?;
    Ok((process, address))
}

/// Writes `size` bytes and syncs them `count` times, into blocks already written; gives the times in seconds.
pub(crate) fn write_and_sync(folder: &Path, size: usize, count: usize) -> Result<Vec<f64>> {
    let path = folder.join("bare-writes");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
    if file.metadata()?.len() == 0 {
        file.write_all_at(&vec![0; size * count + 4096], 0)?;
        file.sync_all()?;
    }
    let bytes = vec![b'x'; size];
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let begun = Instant::now();
        file.write_all_at(&bytes, (number * size) as u64)?;
        file.sync_data()?;
        times.push(begun.elapsed().as_secs_f64());
    }
    Ok(times)
}
