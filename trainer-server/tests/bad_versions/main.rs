//! Claims about the gate: of versions that went wrong in more than thirty ways none goes out, and of good ones hardly
//! any is held back.
//!
//! Everything runs through the real learner on Online Retail, from the folder that `FRESHET_DATA` names: a short warm
//! fit, then the events that came next. Each test prints what refused what, and with which figures.

mod creeping;
mod good;
mod mistrained;
mod poisoned;
mod report;
mod scene;
mod tampered;
