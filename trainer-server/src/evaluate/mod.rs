//! Evaluation: every system's answer to every held-out event, and the figures that follow from them.
//!
//! ```text
//! walk or offline protocol ─► ranked (one answer) ─► outcomes (all answers) ─┬─► figures, bootstrap
//!                                                                            └─► document ─► table, html, tensorboard
//! ```
//!
//! Not here: the walk over HTTP (`replay`) and the systems that are compared (`baselines`).
//! Every metric is defined in `docs/evaluation.md`.

pub mod outcomes;

pub mod bootstrap;
pub mod figures;
pub mod systems;

pub mod document;

pub mod offline;

pub mod refit;
pub mod sasrec;

pub mod held_out;
pub mod prequential;

pub mod html;
pub mod svg;
pub mod table;
pub mod tensorboard;

pub mod cpu;
