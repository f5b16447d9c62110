//! Which handler a path and a method mean.
//!
//! A pattern's segments are literal, `{name}` (one segment) or, last, `{name*}` (all that is left, slashes too). Routes are
//! tried in the order in which they were added; a path that fits with another method only is answered 405.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::header::HeaderValue;
use http::{Method, StatusCode};

use super::ingress::Ingress;
use super::{Request, Response, respond};

/// What answers a request.
pub type Handler = Arc<dyn Fn(Request) -> Pin<Box<dyn Future<Output = Response> + Send>> + Send + Sync>;

/// Routes to handlers. Cheap to clone once built.
#[derive(Clone, Default)]
pub struct Router {
    routes: Arc<Vec<Route>>,
    fallback: Option<Handler>,
    /// The ingress, where it is the fallback.
    ingress: Option<Arc<Ingress>>,
}

#[derive(Clone)]
struct Route {
    method: Method,
    pattern: Arc<Pattern>,
    handler: Handler,
    open: bool,
}

/// What the router found for a request.
pub(super) enum Found<'a> {
    /// A handler, its pattern (none for the fallback), and whether anybody may ask it.
    Handler(&'a Handler, Option<&'a Arc<Pattern>>, bool),
    /// The path is known, the method is not.
    WrongMethod(HeaderValue),
    /// Nothing.
    Nothing,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let routes = self.routes.iter().map(|r| format!("{} {}", r.method, r.pattern.text));
        f.debug_list().entries(routes).finish()
    }
}

impl Router {
    /// A router without routes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a route for those who may come in. `HEAD` goes where `GET` goes.
    #[must_use]
    pub fn route<F, R>(self, method: Method, pattern: &'static str, handler: F) -> Self
    where
        F: Fn(Request) -> R + Send + Sync + 'static,
        R: Future<Output = Response> + Send + 'static,
    {
        self.add(method, pattern, boxed(handler), false)
    }

    /// Adds a route for everybody, credentials or not: health checks.
    #[must_use]
    pub fn open<F, R>(self, method: Method, pattern: &'static str, handler: F) -> Self
    where
        F: Fn(Request) -> R + Send + Sync + 'static,
        R: Future<Output = Response> + Send + 'static,
    {
        self.add(method, pattern, boxed(handler), true)
    }

    /// Has the ingress answer all other paths, whatever the method.
    #[must_use]
    pub fn ingress(mut self, ingress: Ingress) -> Self {
        let ingress = Arc::new(ingress);
        self.ingress = Some(ingress.clone());
        self.fallback(move |request| {
            let ingress = ingress.clone();
            async move { ingress.answer(request).await }
        })
    }

    /// Whether the ingress answers all other paths.
    pub(super) fn has_ingress(&self) -> bool {
        self.ingress.is_some()
    }

    /// The ingress, if a `POST` to this path is for it.
    pub(super) fn ingress_for(&self, path: &str) -> Option<&Arc<Ingress>> {
        self.ingress.as_ref().filter(|_| self.falls_back(&Method::POST, path))
    }

    /// Sets what answers all other paths, whatever the method.
    #[must_use]
    pub fn fallback<F, R>(mut self, handler: F) -> Self
    where
        F: Fn(Request) -> R + Send + Sync + 'static,
        R: Future<Output = Response> + Send + 'static,
    {
        self.fallback = Some(boxed(handler));
        self
    }

    fn add(mut self, method: Method, pattern: &'static str, handler: Handler, open: bool) -> Self {
        let pattern = Arc::new(Pattern::new(pattern));
        Arc::make_mut(&mut self.routes).push(Route { method, pattern, handler, open });
        self
    }

    /// Whether a request is for the fallback.
    pub(super) fn falls_back(&self, method: &Method, path: &str) -> bool {
        matches!(self.find(method, path), Found::Handler(_, None, _))
    }

    pub(super) fn find(&self, method: &Method, path: &str) -> Found<'_> {
        let mut allowed: Vec<&str> = Vec::new();
        let wanted = if *method == Method::HEAD { &Method::GET } else { method };
        for route in self.routes.iter().filter(|route| route.pattern.fits(path)) {
            if route.method == *wanted {
                return Found::Handler(&route.handler, Some(&route.pattern), route.open);
            }
            allowed.push(route.method.as_str());
        }
        if !allowed.is_empty() {
            allowed.dedup();
            return match HeaderValue::from_str(&allowed.join(", ")) {
                Ok(allowed) => Found::WrongMethod(allowed),
                Err(_) => Found::Nothing,
            };
        }
        self.fallback.as_ref().map_or(Found::Nothing, |handler| Found::Handler(handler, None, false))
    }
}

/// What is answered where there is nothing.
pub(super) fn nothing(path: &str) -> Response {
    let path: String = path.chars().take(200).collect();
    respond::problem(StatusCode::NOT_FOUND, format_args!("there is nothing at {path}"))
}

fn boxed<F, R>(handler: F) -> Handler
where
    F: Fn(Request) -> R + Send + Sync + 'static,
    R: Future<Output = Response> + Send + 'static,
{
    Arc::new(move |request| Box::pin(handler(request)))
}

/// A path with places in it.
#[derive(Debug)]
pub(super) struct Pattern {
    text: &'static str,
    /// What comes before the first place.
    literal: &'static [u8],
}

impl Pattern {
    fn new(text: &'static str) -> Self {
        Self { text, literal: text.split('{').next().unwrap_or_default().as_bytes() }
    }

    fn fits(&self, path: &str) -> bool {
        // Most paths are events', which differ from all patterns before the first place.
        path.as_bytes().starts_with(self.literal) && walk(self.text, path, |_, _| false).is_some()
    }

    /// What stands in `path` for the place `name`, as it was sent.
    pub(super) fn param<'p>(&self, path: &'p str, name: &str) -> Option<&'p str> {
        walk(self.text, path, |place, _| place == name).flatten()
    }
}

/// Walks pattern and path together. `None`: they do not fit. Else what stands at the place that `wanted` chose, if any.
fn walk<'p>(pattern: &str, path: &'p str, wanted: impl Fn(&str, &str) -> bool) -> Option<Option<&'p str>> {
    let mut found = None;
    let mut rest = path;
    let mut segments = pattern.split('/').peekable();
    while let Some(segment) = segments.next() {
        let place = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}'));
        if let Some(place) = place.and_then(|p| p.strip_suffix('*')) {
            let found = if wanted(place, rest) { Some(rest) } else { found };
            return (!rest.is_empty()).then_some(found);
        }
        let (here, after) = match rest.split_once('/') {
            Some((here, after)) => (here, Some(after)),
            None => (rest, None),
        };
        match place {
            Some(_) if here.is_empty() => return None,
            Some(place) if wanted(place, here) => found = Some(here),
            Some(_) => {}
            None if here != segment => return None,
            None => {}
        }
        match (after, segments.peek().is_some()) {
            (Some(after), true) => rest = after,
            (None, false) => return Some(found),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(_: Request) -> std::future::Ready<Response> {
        std::future::ready(respond::empty(StatusCode::OK))
    }

    fn param(pattern: &'static str, path: &str, name: &str) -> Option<String> {
        Pattern::new(pattern).param(path, name).map(str::to_owned)
    }

    #[test]
    fn places_take_one_segment_or_all_that_is_left() {
        let pattern = "/b/{name}/cursors/{consumer*}";
        assert_eq!(param(pattern, "/b/x/cursors/trigger/default/t/1", "consumer").as_deref(), Some("trigger/default/t/1"));
        assert_eq!(param(pattern, "/b/x/cursors/uplink", "name").as_deref(), Some("x"));
        for path in ["/b/x/cursors/", "/b/x/cursors", "/b//cursors/u", "/c/x/cursors/u", "b/x/cursors/u"] {
            assert!(!Pattern::new(pattern).fits(path), "{path}");
        }
        assert!(Pattern::new("/healthz").fits("/healthz"));
        assert!(!Pattern::new("/healthz").fits("/healthz/"));
        assert!(!Pattern::new("/healthz").fits("/healthz2"));
    }

    #[test]
    fn a_known_path_with_another_method_tells_which_are_allowed() {
        let router = Router::new().route(Method::GET, "/a", answer).route(Method::PUT, "/a", answer);
        assert!(matches!(router.find(&Method::HEAD, "/a"), Found::Handler(..)));
        let Found::WrongMethod(allowed) = router.find(&Method::POST, "/a") else { panic!("405") };
        assert_eq!(allowed, "GET, PUT");
        assert!(matches!(router.find(&Method::GET, "/b"), Found::Nothing));
        let router = router.fallback(answer);
        assert!(matches!(router.find(&Method::GET, "/b"), Found::Handler(_, None, false)));
    }
}
