//! A small Kubernetes API server in one process, for one machine.

pub mod builtin;
pub mod field;
pub mod openapi;
pub mod patch;
pub mod resource;
pub mod schema;
pub mod table;
