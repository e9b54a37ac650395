"""Iterative alignment inside one run. Reading order: callback (the hooks), round_shards (making a round's shards),
reference_file (the reference of a round), ledger (the record of each round), prompts (those that a round answers),
compatibility (checks of settings), evaluator (figures between rounds), answers (kept for the report), summary (the end
of a run)."""

from rlaifv_pl.rounds.callback import Rounds

__all__ = ["Rounds"]
