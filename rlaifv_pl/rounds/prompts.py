"""Selection of the prompts that a round answers."""

import random
from collections.abc import Collection, Sequence

from rlaifv_pl.data.shards import ShardSet
from rlaifv_pl.feedback.config import PromptSet
from rlaifv_pl.objectives.base import RunError


def recorded_prompts(shards: ShardSet, recorded: Sequence[str]) -> PromptSet | None:
    """Prompts that a round has recorded, in its order; None if none are recorded, or some are no longer there.

    Args:
        shards: shards of all prompts.
        recorded: keys from the ledger.
    """
    numbers = {key: number for number, key in enumerate(shards.keys())}
    is_complete = recorded and all(key in numbers for key in recorded)
    return PromptSet(shards, [numbers[key] for key in recorded]) if is_complete else None


def next_prompts(
    shards: ShardSet, used: Collection[str], seed: int, *, rounds: int, count: int | None, repeat: bool
) -> PromptSet:
    """Take the next prompts of one shuffle that no earlier round has used.

    Args:
        shards: shards of all prompts.
        used: keys of the prompts of earlier rounds.
        seed: seed of the shuffle.
        rounds: number of rounds to come, including the next one.
        count: number of prompts of a round; an equal share of what is left if None.
        repeat: whether to start again from the beginning of the shuffle when too few are left.

    Raises:
        RunError: too few are left for the rounds to come.
    """
    order = random.Random(seed).sample(range(len(shards)), len(shards))
    keys = list(shards.keys())
    free = [number for number in order if keys[number] not in used]
    wanted = count or len(free) // rounds
    if repeat and len(free) < max(wanted, 1):
        free += [number for number in order if keys[number] in used]
        wanted, rounds = count or len(order), 1
    elif repeat:
        rounds = 1
    if not 0 < wanted * rounds <= len(free):
        raise RunError(
            f"{rounds} rounds of {wanted} prompts need {max(wanted, 1) * rounds}, but there are {len(free)} of "
            f"{len(shards)} that no earlier round has answered. Bring more prompts, set fewer rounds or "
            "prompts_per_round, or rounds.repeat_prompts: true to answer some again."
        )
    return PromptSet(shards, free[:wanted])
