//! The IO half of the server over real HTTP and real files: no claim here needs a trained model.

mod access;
mod bodies;
mod canary;
mod compose;
mod dashboard;
mod events;
mod harness;
mod import;
mod items;
mod lifecycle;
mod limits;
mod models;
mod process;
mod publish;
mod rank;
mod server;
mod slow;
mod soak;
mod text_encoder;
mod versions;
mod visits;
