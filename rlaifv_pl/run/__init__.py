"""What a training run leaves behind, and what keeps it going. Reading order: checkpoint (to go on from),
checkpoint_file (one in a file) and slices (one in a directory, of many processes), fsdp (the strategy of models in
slices), signals (told to stop), numbers (gone bad), logs (one table, continued), throughput, console, messages and
quiet (words on the screen, or not), trust (which classes configs may name)."""
