//! The addresses of Services: Kubernetes' and Knative's, which somebody else runs. There is no Kubernetes here to ask, so the
//! configuration says where they are.

use std::collections::BTreeMap;

use thiserror::Error;
use url::Url;

use crate::manifest::absolute;

/// A key of the configuration that says where no Service can be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{key}: {why}")]
pub struct ServicesError {
    /// The key.
    pub key: String,
    /// What is wrong with it.
    pub why: String,
}

/// What references to a Service lead to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Services {
    named: BTreeMap<String, Url>,
    /// With `{namespace}` and `{name}` in it.
    template: Option<String>,
}

impl Services {
    /// Those of `named` (`namespace/name`, or `name` in the namespace `default`, with a URL each); `template` has `{namespace}` and
    /// `{name}` in it and stands for all others.
    ///
    /// # Errors
    /// The key of the configuration that is wrong, and why.
    pub fn new(named: &BTreeMap<String, String>, template: Option<&str>) -> Result<Self, ServicesError> {
        let mut found = BTreeMap::new();
        for (service, url) in named {
            let url = http(url).map_err(|why| ServicesError { key: format!("services.\"{service}\""), why })?;
            let full = if service.contains('/') { service.clone() } else { format!("default/{service}") };
            found.insert(full, url);
        }
        let this = Self { named: found, template: template.map(str::to_owned) };
        if let Some(template) = template {
            filled(template, "namespace", "name")
                .map_err(|why| ServicesError { key: "resolve.service-template".to_owned(), why })?;
        }
        Ok(this)
    }

    /// The URL of a Service, if it has one here.
    ///
    /// # Errors
    /// What to write in the configuration.
    pub(crate) fn url(&self, namespace: &str, name: &str) -> Result<Url, String> {
        if let Some(url) = self.named.get(&format!("{namespace}/{name}")) {
            return Ok(url.clone());
        }
        match &self.template {
            Some(template) => filled(template, namespace, name),
            None => Err(format!(
                "Service {namespace}/{name} has no address here: give its URL in the configuration, [services] \
                 \"{namespace}/{name}\" = \"http://…\", or a service-template under [resolve]; or write a uri"
            )),
        }
    }
}

fn filled(template: &str, namespace: &str, name: &str) -> Result<Url, String> {
    http(&template.replace("{namespace}", namespace).replace("{name}", name))
}

fn http(url: &str) -> Result<Url, String> {
    let url = absolute(url)?;
    if url.scheme() == "mqtt" { Err(format!("\"{url}\": http and https are for Services")) } else { Ok(url) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services(named: &[(&str, &str)], template: Option<&str>) -> Result<Services, String> {
        Services::new(&named.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(), template)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn a_listed_service_wins_over_the_template() {
        let services = services(
            &[("site/display", "http://10.0.0.7:9000/in"), ("other", "https://o.example")],
            Some("http://{name}.{namespace}.example:8080/"),
        )
        .expect("valid");
        let url = |namespace: &str, name: &str| services.url(namespace, name).map(String::from);
        assert_eq!(url("site", "display"), Ok("http://10.0.0.7:9000/in".to_owned()));
        assert_eq!(url("default", "other"), Ok("https://o.example/".to_owned()));
        assert_eq!(url("site", "x"), Ok("http://x.site.example:8080/".to_owned()));
    }

    #[test]
    fn without_either_the_error_says_what_to_write() {
        let why = Services::default().url("site", "x").expect_err("no address");
        assert!(why.contains("[services] \"site/x\""), "{why}");
    }

    #[test]
    fn what_is_no_url_is_refused_at_the_start() {
        assert!(services(&[("a", "10.0.0.7")], None).expect_err("no URL").starts_with("services.\"a\""));
        assert!(services(&[("a", "mqtt:///x")], None).is_err());
        assert!(!services(&[("a", "ftp://u:s3cr3t@h")], None).expect_err("not HTTP").contains("s3cr3t"));
        assert!(services(&[], Some("{name}")).expect_err("no URL").starts_with("resolve.service-template"));
    }
}
