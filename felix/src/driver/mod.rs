//! The only I/O of felix: Kubernetes, netlink, gRPC, the CNI socket.
