//! The table `inet margay`: model, fixed rules, difference, netlink encoding.
