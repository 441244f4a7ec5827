//! The Freshet server: takes in events, keeps them, learns from them, publishes what was learned.
//!
//! Modules in the order of the loop: `config` → `ingest`, `event_log`, `catalogue` → learning →
//! `publish` → `http`. Not here: the model, the codec and the wire (`shared_model`).

pub mod clock;
pub mod config;
mod priority;
pub mod telemetry;

pub mod backup;
pub mod catalogue;
pub mod erasure;
pub mod event_log;
pub mod export;
pub mod import;
pub mod ingest;
pub mod pseudonyms;
pub mod reserve;

pub mod cross_encoder;
pub mod influence;
pub mod preprocess;
pub mod privacy;
pub mod text_source;
pub mod train;

pub mod betting;
pub mod compress;
pub mod gate;

pub mod canary;
pub mod ledger;
pub mod publish;
pub mod rollout;

pub mod experiment;

pub mod checkpoint;
pub mod coverage;
pub mod device;
pub mod explore;
pub mod learner;
pub mod trainer;

pub mod distill;
pub mod moderation;
pub mod observe;
pub mod prune;
pub mod text_pack;

pub mod ladder;
pub mod page_encoder;

pub mod access;
pub mod audit;
pub mod http;
pub mod visits;

pub mod dataset;

pub mod baselines;
pub mod page_client;

pub mod evaluate;
pub mod faithfulness;
pub mod replay;
pub mod study;

pub mod cli;
