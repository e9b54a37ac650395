"""Speed and memory, side by side with what others do, in one process and as ratios."""
