"""What a run will need, before it is started: samples, steps, memory, time and disk, and what to change where
something does not fit. Reading order: planned (the run as its config says, and the machine), tokens (samples and
batches), spread (who holds what), shapes (tensors without values) and memory (the run's own step on them), advice
(what to change), disk, trial (seconds of a few steps, told by clock), found (all of it), tables (on the screen),
verb (`rlaifv preflight`)."""
