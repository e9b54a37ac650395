"""Callbacks and plugins of a training run. Reading order: run_directory (whether a run may begin here), checkpoint and
best_checkpoint (checkpoint_io: one file; sharded_checkpoint: a directory written by many processes), fsdp (the FSDP2
strategy), signals and exit_codes (runs that are told to stop), shown_command (the command that resumes a run),
non_finite (losses and gradients that are not finite), loggers, throughput, held_out and held_out_figures (benchmarks
inside a run), console (progress bar and summaries)."""
