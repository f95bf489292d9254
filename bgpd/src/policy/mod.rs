//! Import and export policy.
