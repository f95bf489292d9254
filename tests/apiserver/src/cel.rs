//! `x-kubernetes-validations`: CEL rules with the Kubernetes libraries.
