//! Tests of everything that travels: deltas, snapshots, manifests, plans, announcements, and the machine that follows them.
//!
//! `fixtures` makes states and publishes versions as a server would; `golden` pins the layouts;
//! `properties` makes random states; `damage` breaks bytes; `following` drives the sync machine,
//! `keys` attacks it where a root is pinned; `fuzzing` says what a fuzzer may claim; `text_encoder` pins what pages
//! embed texts with, `moderation` the rules that they are told.

mod attacks;
mod damage;
mod first_model;
mod fixtures;
mod following;
mod fuzzing;
mod golden;
mod keys;
mod moderation;
mod properties;
#[cfg(feature = "text")]
mod text_encoder;
mod trust;
