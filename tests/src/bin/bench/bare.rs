//! The bare peers: a hyper server that only answers 202 and a server that only stores, as processes of their own, and a loop of write
//! and fdatasync.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
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
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Bytes of the file that the server that only stores writes to, again and again.
const STORED: u64 = 1 << 20;

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

/// Bytes of an answer of the server that only stores: as many as a PUBACK has.
pub(crate) const ANSWER: usize = 4;

/// Is the server that only stores: takes blocks of `size` bytes from one connection at a time, has a thread write and sync each, and
/// answers. Nothing of this shape can do less.
pub(crate) fn store(port: u16, folder: &Path, size: usize) -> Result<()> {
    let file = zeroed(folder, STORED)?;
    let (to_writer, work) = std::sync::mpsc::channel::<(Vec<u8>, tokio::sync::oneshot::Sender<()>)>();
    std::thread::spawn(move || {
        for (number, (block, done)) in work.into_iter().enumerate() {
            let at = (number * block.len()) as u64 % STORED;
            if file.write_all_at(&block, at).is_err() || file.sync_data().is_err() {
                return;
            }
            let _ = done.send(());
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        loop {
            let (mut stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let mut block = vec![0; size];
            while stream.read_exact(&mut block).await.is_ok() {
                let (done, stored) = tokio::sync::oneshot::channel();
                to_writer.send((block.clone(), done))?;
                stored.await?;
                stream.write_all(&[0; ANSWER]).await?;
            }
        }
    })
}

/// Starts the server that only answers.
pub(crate) fn start(lab: &Lab) -> Result<(Process, SocketAddr)> {
    started(lab, "bare", |port| vec!["--bare-server".to_owned(), port])
}

/// Starts the server that only stores.
pub(crate) fn start_store(lab: &Lab, size: usize) -> Result<(Process, SocketAddr)> {
    let folder = lab.path().display().to_string();
    let arguments = |port| {
        vec!["--bare-store".to_owned(), folder, "--bare-server".to_owned(), port, "--size".to_owned(), size.to_string()]
    };
    started(lab, "bare-store", arguments)
}

fn started(lab: &Lab, name: &str, arguments: impl FnOnce(String) -> Vec<String>) -> Result<(Process, SocketAddr)> {
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ports::free());
    let arguments = arguments(address.port().to_string());
    let line = Line { program: std::env::current_exe()?, arguments, ..Line::default() };
    let process = Process::start(name, &line, &lab.path().join(format!("{name}.log")))?;
    wait::until(format!("{name} listens"), Duration::from_secs(5), || match TcpStream::connect(address) {
        Ok(_) => Seen::Yes(()),
        Err(error) => Seen::NotYet(error.to_string()),
    })?;
    Ok((process, address))
}

/// Writes `size` bytes and syncs them `count` times, into blocks already written; gives the times in seconds.
pub(crate) fn write_and_sync(folder: &Path, size: usize, count: usize) -> Result<Vec<f64>> {
    let file = zeroed(folder, (size * count) as u64)?;
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

/// A file of at least `size` bytes in blocks that were written before, as a journal's are.
fn zeroed(folder: &Path, size: u64) -> Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(format!("bare-{size}")))?;
    if file.metadata()?.len() == 0 {
        file.write_all_at(&vec![0; usize::try_from(size)? + 4096], 0)?;
        file.sync_all()?;
    }
    Ok(file)
}
