//! Privacy: how much private training has told of any one client, and where that is kept.
//!
//! A *private round* is so many steps on the gradients of single clients, clipped, summed and noised
//! (`train::private_step`). This room adds up what all rounds together may have told:
//!
//! ```text
//! settings of a round ──► accountant: Rényi divergence by order, summed over all steps ──► ε at δ
//!                     └─► spend: `privacy.json`, on the disk before the first step of the round
//! ```
//! What is guaranteed, of what, and what is not: `docs/privacy.md`. Not here: gradients, noise and when a round is due
//! (`trainer::worker::private`).

pub mod accountant;
pub mod spend;

pub use accountant::{Mechanism, epsilon};
pub use spend::{Spend, SpendError};
