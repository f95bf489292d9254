//! What felix is told about the cluster, as plain data.
