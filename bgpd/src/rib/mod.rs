//! Routing tables and the decision process of RFC 4271 section 9.
