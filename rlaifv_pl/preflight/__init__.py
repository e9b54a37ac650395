"""What a run will need, before it is started: samples, steps, memory, time and disk, and what to change where something
does not fit."""
