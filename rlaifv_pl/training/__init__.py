"""Parts of a training run beside the objective. Reading order: run_directory (may a run begin here), checkpoint and
best_checkpoint (checkpoint_io: one file; sharded_checkpoint: a directory written by many processes), fsdp (the FSDP2
strategy), signals and exit_codes (a run that is told to stop), shown_command (the command to go on), non_finite (a loss
or gradient that is no finite number), loggers, throughput, held_out and held_out_figures (benchmarks inside a run),
console (what is printed)."""
