//! The IO half of the server over real HTTP and real files: no claim here needs a trained model.

mod access;
mod api;
mod bodies;
mod canary;
mod clients;
mod compose;
mod dashboard;
mod events;
mod experiments;
mod harness;
mod import;
mod items;
mod lifecycle;
mod limits;
mod models;
mod moderation;
mod process;
mod pseudonyms;
mod publish;
mod rank;
#[cfg(unix)]
mod reload;
mod server;
mod slow;
mod soak;
mod text_encoder;
mod versions;
mod visits;
