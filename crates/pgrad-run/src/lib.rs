//! Driver, configuration, checkpoints, metrics, evaluation, studies: the only floor that reads a clock, touches files or starts threads.
