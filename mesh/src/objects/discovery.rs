//! What there is: groups, versions and kinds, as Kubernetes' discovery tells it.

use serde_json::{Value, json};

use crate::manifest::schema::{RESOURCES, Resource, Version};

/// The Kubernetes whose API this is like; clients look at it to warn of versions that are too far apart.
const LIKE: (&str, &str) = ("1", "32");

/// `GET /version`.
pub(super) fn version() -> Value {
    let (major, minor) = LIKE;
    json!({
        "major": major,
        "minor": minor,
        "gitVersion": format!("v{major}.{minor}.0+godwit-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// `GET /api`: nothing of the core group is here.
pub(super) fn core() -> Value {
    json!({"kind": "APIVersions", "versions": [], "serverAddressByClientCIDRs": []})
}

/// `GET /apis`.
pub(super) fn groups() -> Value {
    let groups: Vec<Value> = group_names().into_iter().filter_map(|name| group(name, false)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `GET /apis/{group}`, and as one of all groups.
pub(super) fn group(name: &str, alone: bool) -> Option<Value> {
    let versions: Vec<Value> = versions(name)
        .into_iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    let preferred = versions.first()?.clone();
    let mut group = json!({"name": name, "versions": versions, "preferredVersion": preferred});
    if let (true, Some(group)) = (alone, group.as_object_mut()) {
        group.insert("kind".to_owned(), "APIGroup".into());
        group.insert("apiVersion".to_owned(), "v1".into());
    }
    Some(group)
}

/// `GET /apis/{group}/{version}`.
pub(super) fn resources(group: &str, version: &str) -> Option<Value> {
    let served = served(group, version);
    if served.is_empty() {
        return None;
    }
    let mut list = Vec::new();
    for (resource, _) in served {
        list.push(json!({
            "name": resource.plural,
            "singularName": resource.singular(),
            "namespaced": true,
            "kind": resource.name,
            "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
            "shortNames": resource.short,
            "categories": resource.categories,
        }));
        list.push(json!({
            "name": format!("{}/status", resource.plural),
            "singularName": "",
            "namespaced": true,
            "kind": resource.name,
            "verbs": ["get", "patch", "update"],
        }));
    }
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": format!("{group}/{version}"),
        "resources": list,
    }))
}

/// The groups, in the order of the kinds.
pub(super) fn group_names() -> Vec<&'static str> {
    let mut names = Vec::new();
    for resource in &RESOURCES {
        if !names.contains(&resource.group) {
            names.push(resource.group);
        }
    }
    names
}

/// The versions of a group, the most settled first: `v1` before `v1beta3` before `v1beta2` before `v1alpha1`.
pub(super) fn versions(group: &str) -> Vec<&'static str> {
    let of_group = RESOURCES.iter().filter(|r| r.group == group);
    let mut versions: Vec<&str> = of_group.flat_map(|r| r.versions.iter().map(|v| v.name)).collect();
    let settled = |name: &str| {
        if name.contains("alpha") {
            0
        } else if name.contains("beta") {
            1
        } else {
            2
        }
    };
    versions.sort_by(|a, b| settled(b).cmp(&settled(a)).then_with(|| b.cmp(a)));
    versions.dedup();
    versions
}

/// The kinds that a group serves in a version.
pub(super) fn served(group: &str, version: &str) -> Vec<(&'static Resource, &'static Version)> {
    RESOURCES.iter().filter(|r| r.group == group).filter_map(|r| Some((r, r.version(version)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_settled_version_is_preferred() {
        assert_eq!(versions("eventing.knative.dev"), ["v1", "v1beta3", "v1beta2", "v1beta1", "v1alpha1"]);
        assert_eq!(versions("sources.knative.dev"), ["v1", "v1beta2", "v1beta1", "v1alpha1"]);
        assert!(group("apps", true).is_none());
        assert!(resources("eventing.knative.dev", "v2").is_none());
    }
}
