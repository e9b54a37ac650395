"""Rounds of alignment inside one run. Reading order: reference_file (the reference of a round), ledger (the record of
each round), prompts (which ones a round answers), compatibility (settings that go together), evaluator (figures between
rounds), answers (kept for the report), callback (the loop), summary (the end of a run)."""

from rlaifv_pl.rounds.callback import Rounds

__all__ = ["Rounds"]
