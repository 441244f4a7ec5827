//! Freshet.
