//! Driver, configuration, checkpoints, metrics, evaluation, studies: the only floor that reads a clock, touches files or starts threads.

pub mod checkpoint;
pub mod clock;
pub mod metrics;
pub mod run_dir;
pub mod stats;
pub mod storage;
pub mod tensors;
