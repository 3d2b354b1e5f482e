//! Counter-based random draws.
