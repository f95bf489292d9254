//! The only I/O of bgpd.
