"""The needs of a run before it starts: samples, steps, memory, time and disk, and what to change if something does not
fit. Reading order: machine (devices and steps), dataset_stats (samples and batches), parallelism (what each device
holds), shapes (tensors without values) and memory (a step on them), advice (what to change), disk, trial (seconds of a
few steps; step_timer), findings (all of it), tables (on the screen)."""
