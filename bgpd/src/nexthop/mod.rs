//! What a next hop resolves to.
