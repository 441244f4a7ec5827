//! Incremental training: from labelled timelines to new f32 parameters.
//!
//! Three ways to learn, sharing losses and optimizers:
//! the *warm fit* trains everything over the log, a *fast step* moves only the rows of the items just
//! seen, and *release steps* train the slow group on replayed windows while nothing else waits.
//! Where privacy is on, *private steps* are in the place of all three.
//! Not here: what is sent of it (`compress`), and whether (`gate`).

pub mod adversarial;
pub mod augment;
pub mod contrast;
pub mod init;
pub mod neighbour_counts;
pub mod objective;
pub mod optimizer;
pub mod schedule;
pub mod strategy;
pub mod text_views;
pub mod windows;

pub mod count_history;
pub mod counts;
pub mod fast_step;
mod full_batch;
pub mod full_optimizer;
pub mod full_step;
mod gradient_sum;
mod host;
mod losses;
pub(crate) mod module_gradients;
pub(crate) use losses::host_log_sum_exp;
pub mod private_step;
pub mod teacher;
pub mod text_step;
pub mod warm_fit;

/// Why a step was not taken. The parameters are as before it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TrainError {
    /// The loss is NaN or infinite.
    #[error("loss is {loss} at step {step}, the step was skipped")]
    LossNotFinite {
        /// Its value.
        loss: f32,
        /// Number of the step.
        step: u64,
    },
    /// A gradient is NaN or infinite.
    #[error("gradient norm is {norm} at step {step}, the step was skipped")]
    GradientNotFinite {
        /// Its global norm.
        norm: f32,
        /// Number of the step.
        step: u64,
    },
    /// A teacher could not be asked.
    #[error("the teacher of step {step} does not answer: {reason}")]
    Teacher {
        /// Number of the step.
        step: u64,
        /// Its words.
        reason: String,
    },
    /// The device failed while values were read back.
    #[error("the device failed in step {step}: {reason}")]
    Device {
        /// Number of the step.
        step: u64,
        /// The backend's words.
        reason: String,
    },
}
