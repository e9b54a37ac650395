"""Correct: a rejected answer becomes a dialogue that gets right what it got wrong (nSFT). Reading order:
codebook (kinds of error), diagnose (what is wrong, by the verdicts), turns (which dialogues are fit), rules and
model (who writes them), run (shards in, shards out), verb."""
