//! Objects over HTTP, in the shape of Kubernetes' API, so that `kubectl` and Knative's tools work against an agent or a gateway.
//!
//! [`Objects`] shows every object of the process, whoever brought it: the folder of manifests, the gateway, or the API itself,
//! whose objects are kept in redb. Owners never change what another holds; such a request is refused and names the holder.
//! [`routes`] serves it: discovery, OpenAPI, list, get, create, update, patch, server-side apply, delete, watch, tables.
//!
//! The files go from the data to the wire: `kept` is what is on disk, `status` (`flow_status` for what is made of Channels) says how
//! an object stands, `view` is what is shown and its changes, `store` holds it all, `change` changes objects, `delete` deletes them, `form` looks at them
//! as JSON, `managed` knows who set which field, `patch` changes JSON, `selector`, `table` and
//! `watch` are ways of reading, `discovery` and `openapi` tell what there is, `http` is the door to it all. What fails is answered
//! with a `Status` (`error`); a change that was refused has changed nothing.

mod change;
mod delete;
mod discovery;
mod error;
mod flow_status;
mod form;
mod http;
pub mod jsonpath;
mod kept;
mod managed;
pub mod openapi;
mod patch;
mod protobuf;
mod selector;
mod status;
mod store;
mod table;
#[cfg(test)]
mod tests;
mod view;
mod watch;
mod when;

pub use change::{Change, Changed};
pub use delete::Deleted;
pub use error::ApiError;
pub use http::routes;
pub use managed::FieldConflict;
pub use store::Objects;
pub use view::Key;

/// The file with the objects that were made over the API, in the data folder.
pub const FILE: &str = "objects.redb";
