"""What a training run leaves behind, and what keeps it going. Reading order: checkpoint (to go on from, and best,
which one to keep), checkpoint_file (one in a file) and slices (one in a directory, of many processes), fsdp (the
strategy of models in slices), signals (told to stop), numbers (gone bad), logs (one table, continued), throughput,
held_out (benchmarks inside a run, with held_out_figures), console, messages and quiet (words on the screen, or
not), trust (which classes configs may name)."""
