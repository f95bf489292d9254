//! One `Config` from a file or from Kubernetes.
