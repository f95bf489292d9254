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

pub mod builtin;
pub mod cel;
pub mod clock;
pub mod field;
pub mod openapi;
pub mod patch;
pub mod resource;
pub mod schema;
pub mod table;
