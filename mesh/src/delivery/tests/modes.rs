//! Every way in which a subscriber can fail. In each the event is kept, the failure is said, and memory and time stay bounded; another
//! Trigger is not delayed.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::sink::{Say, Sink};
use super::world::{World, event, eventually, trigger};

/// How a subscriber fails once it has the request's head.
#[derive(Debug, Clone, Copy)]
enum Mode {
    Refuses,
    Hangs,
    /// A byte of an endless answer now and then.
    Drips,
    ResetsBeforeItAnswers,
    ResetsWithinItsBody,
    /// A body of 1 GiB, as fast as it is taken.
    Floods,
    FloodsWithAnError,
    RedirectsToItself,
    SpeaksNoHttp,
    SpeaksNoTls,
}

/// A subscriber that fails so; its URL.
async fn failing(mode: Mode) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    if matches!(mode, Mode::Refuses) {
        return format!("http://{addr}/in");
    }
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(fail(stream, mode));
        }
    });
    let scheme = if matches!(mode, Mode::SpeaksNoTls) { "https" } else { "http" };
    format!("{scheme}://{addr}/in")
}

async fn fail(mut stream: TcpStream, mode: Mode) -> std::io::Result<()> {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request).await?;
    let addr = stream.local_addr()?;
    let reset = |stream: &TcpStream| socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    match mode {
        Mode::Refuses => {}
        Mode::Hangs => tokio::time::sleep(Duration::from_secs(3600)).await,
        Mode::Drips => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await?;
            loop {
                stream.write_all(b"x").await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Mode::ResetsBeforeItAnswers => reset(&stream)?,
        Mode::ResetsWithinItsBody => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
            reset(&stream)?;
        }
        Mode::Floods | Mode::FloodsWithAnError => {
            let status = if matches!(mode, Mode::Floods) { "200 OK" } else { "500 Oh" };
            stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 1073741824\r\n\r\n").as_bytes()).await?;
            let piece = [b'x'; 64 << 10];
            for _ in 0..(1 << 30) / piece.len() {
                stream.write_all(&piece).await?;
            }
        }
        Mode::RedirectsToItself => {
            let head = format!("HTTP/1.1 307 Again\r\nlocation: http://{addr}/in\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
        }
        Mode::SpeaksNoHttp | Mode::SpeaksNoTls => stream.write_all(b"220 mail.example ESMTP\r\n").await?,
    }
    Ok(())
}

#[tokio::test]
async fn d12_whatever_a_subscriber_does_the_event_is_kept_within_its_time_and_others_are_not_delayed() {
    for (mode, code, says) in [
        (Mode::Hangs, 500, "no complete answer"),
        (Mode::Drips, 500, "no complete answer"),
        (Mode::ResetsBeforeItAnswers, 500, ""),
        (Mode::ResetsWithinItsBody, 500, "broke off"),
        (Mode::Floods, 502, "more than 65536 bytes"),
        (Mode::FloodsWithAnError, 500, "answered 500"),
        (Mode::RedirectsToItself, 307, "answered 307"),
        (Mode::SpeaksNoHttp, 500, ""),
        (Mode::SpeaksNoTls, 500, ""),
        (Mode::Refuses, 500, "refused"),
    ] {
        let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(202)]).await);
        let world = World::open(dir.path()).await;
        let bad = trigger("bad", &failing(mode).await, "  delivery:\n    retry: 0\n    timeout: PT0.3S");
        world.apply(&[bad, trigger("good", &sink.url, "")].concat()).await.expect("applied");
        let begin = Instant::now();
        world.publish(&event("1", "a")).await;
        assert_eq!(world.settled("good", 1).await.done.delivered, 1, "{mode:?}");
        assert_eq!(world.settled("bad", 1).await.done.dead_lettered, 1, "{mode:?}");
        assert!(begin.elapsed() < Duration::from_secs(10), "{mode:?}: {:?}", begin.elapsed());
        let dead = world.dead_letters().await;
        let head = &dead.first().expect("one").head;
        assert_eq!(head.code, code, "{mode:?}: {}", head.message);
        assert!(head.message.contains(says), "{mode:?}: {}", head.message);
        assert!(head.data.len() <= 1024, "d23");
        world.close().await;
    }
}

#[tokio::test]
async fn d16_an_event_for_a_subscriber_that_refuses_connections_waits_and_others_go_on() {
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[Say::status(202)]).await);
    let world = World::open(dir.path()).await;
    let away = trigger("away", &failing(Mode::Refuses).await, "");
    world.apply(&[away, trigger("good", &sink.url, "")].concat()).await.expect("applied");
    for id in ["1", "2", "3"] {
        world.publish(&event(id, "a")).await;
    }
    assert_eq!(world.settled("good", 3).await.done.delivered, 3);
    eventually("the retry is shown with what went wrong", || {
        let status = world.status("away");
        if status["retry"]["offset"] == 0 && status["last_error"]["code"] == 500 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    assert_eq!(world.ledger("away").map(|ledger| ledger.pending), Some(3));
    world.close().await;
}

#[tokio::test]
async fn the_last_error_shows_the_beginning_of_the_answer() {
    let say = Say::status(400).body(&"no such unit \u{1b} ".repeat(100));
    let (dir, sink) = (tempfile::tempdir().expect("folder"), Sink::start(&[say]).await);
    let world = World::open(dir.path()).await;
    world.apply(&trigger("t", &sink.url, "  delivery:\n    retry: 0")).await.expect("applied");
    world.publish(&event("1", "a")).await;
    world.settled("t", 1).await;
    let answer = world.status("t")["last_error"]["answer"].as_str().unwrap_or_default().to_owned();
    assert!(answer.starts_with("no such unit") && answer.len() <= 768, "{answer}");
    world.close().await;
}
