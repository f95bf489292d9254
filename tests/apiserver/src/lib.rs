//! A small Kubernetes API server in one process, for one machine.
//!
//! ```text
//!  kubectl, kube-rs                     request                      store
//!  ──── TLS + token ──► server ──► router ──► verbs ──► admission ──► one revision counter,
//!                       (listeners,           (get, list, watch,      ordered objects, event
//!                        also in other         create, update,        rings, append-only log
//!                        namespaces)           patch, delete)              │
//!  ◄── JSON, Table, watch lines (each serialised once) ◄───────────────────┘
//! ```
//!
//! `resource` says which kinds there are (built in, and from CustomResourceDefinitions), `schema` and `cel`
//! judge custom objects, `builtin` judges the built-in ones, `patch`, `table` and `openapi` are pure functions.

mod admission;
pub mod app;
mod args;
mod base64;
mod body;
pub mod builtin;
pub mod calls;
pub mod cel;
pub mod clock;
mod crd;
mod defaults;
mod delete;
pub mod discovery;
pub mod field;
mod lifecycle;
pub mod listen;
pub mod openapi;
pub mod patch;
mod protobuf;
mod random;
mod read;
pub mod registry;
pub mod request;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod server;
pub mod status;
pub mod store;
pub mod table;
pub mod tls;
mod tokens;
pub mod view;
pub mod watch;
mod write;

pub use args::Args;
pub use listen::Listen;
pub use server::{Config, Handle, Server, StartError};
