//! The sink: takes events by HTTP POST on loopback and prints each as one line.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use godwit_mesh::event;
use godwit_mesh::http::metrics::Metrics;
use godwit_mesh::http::{Door, Limits, Request, Response, Router, Server, ServerMetrics, respond};
use http::StatusCode;
use tokio_util::sync::CancellationToken;

use crate::output::{self, Style, paint};

/// How much of the data is shown.
const SHOWN_CHARACTERS: usize = 400;

/// The sink, bound and not serving yet.
#[derive(Debug)]
pub(super) struct Sink {
    server: Server,
}

impl Sink {
    /// Opens a port of the system's choice on loopback.
    pub(super) async fn open() -> anyhow::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = Server::bind(address, None, Limits::default()).await.context("the sink")?;
        Ok(Self { server })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Serves until `stop`.
    pub(super) async fn serve(self, stop: CancellationToken) {
        let router = Router::new().fallback(take);
        self.server.serve(router, Door::default(), ServerMetrics::register(&Metrics::new()), stop).await;
    }
}

async fn take(mut request: Request) -> Response {
    let limit = request.limits().event_bytes;
    let body = match request.bytes(limit).await {
        Ok(body) => body,
        Err(error) => return error.response(),
    };
    match event::http::decode(&request.head.headers, body, &event::Limits::default()) {
        Ok(event::http::Decoded::One(event)) => {
            // Nobody may read our output any more: the event has arrived all the same.
            let _ = output::print(&line(&event, output::stdout_colours()));
            respond::empty(StatusCode::ACCEPTED)
        }
        Ok(event::http::Decoded::Batch(_)) => respond::problem(StatusCode::BAD_REQUEST, "one event at a time"),
        Err(error) => respond::problem(StatusCode::BAD_REQUEST, error),
    }
}

/// `← agent type subject data`.
fn line(event: &event::Event, colours: bool) -> String {
    let mut text = paint(colours, Style::Green, "←");
    let mut part = |style: Option<Style>, value: &str| {
        let value = output::printable(value);
        text.push(' ');
        text.push_str(&style.map_or_else(|| value.clone(), |style| paint(colours, style, &value)));
    };
    if let Some(agent) = event.get("godwitagent") {
        part(Some(Style::Dim), &agent.to_text());
    }
    part(Some(Style::Cyan), event.ty());
    if let Some(subject) = event.subject() {
        part(Some(Style::Bold), subject);
    }
    if let Some(data) = event.data() {
        match std::str::from_utf8(data) {
            Ok(data) => part(None, &data.chars().take(SHOWN_CHARACTERS).collect::<String>()),
            Err(_) => part(Some(Style::Dim), &format!("<{} bytes>", data.len())),
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event = event::Event::builder()
            .id("1")
            .source("/s")
            .ty("hello")
            .subject("sensors/t1")
            .data("application/json", &b"{\"a\":\n1}"[..])
            .build()
            .expect("valid");
        assert_eq!(line(&event, false), "← hello sensors/t1 {\"a\":\\u{a}1}\n");
    }
}
