"""Rounds of alignment inside one run. Reading order: reference_file (what a round is compared with), ledger
(what is written down of each), prompts (which a round answers), check (which settings go together), probe
(what may be measured), answers (what was said then), callback (the loop), summary (the end), status
(`rlaifv rounds status`)."""

from rlaifv_pl.rounds.callback import Rounds

__all__ = ["Rounds"]
