"""Which prompts a round answers."""

import random
from collections.abc import Collection, Sequence

from rlaifv_pl.data.shards import ShardSet
from rlaifv_pl.feedback.config import PromptSet
from rlaifv_pl.objectives.base import RunError


def noted_prompts(shards: ShardSet, noted: Sequence[str]) -> PromptSet | None:
    """The prompts that a round has taken, in its order; None where none are noted, or they are no longer there.

    Args:
        shards: of all prompts.
        noted: keys.
    """
    numbers = {key: number for number, key in enumerate(shards.keys())}
    is_whole = noted and all(key in numbers for key in noted)
    return PromptSet(shards, [numbers[key] for key in noted]) if is_whole else None


def next_prompts(
    shards: ShardSet, taken: Collection[str], seed: int, *, rounds: int, many: int | None, repeat: bool
) -> PromptSet:
    """The next of one shuffle of all prompts that no earlier round has taken.

    Args:
        shards: of all prompts.
        taken: keys of those that earlier rounds have answered.
        seed: of the shuffle.
        rounds: that are still to come, the next one included.
        many: prompts of a round; what is left in equal shares, unless given.
        repeat: begin again at the first ones where too few are left.

    Raises:
        RunError: there are too few for the rounds to come.
    """
    order = random.Random(seed).sample(range(len(shards)), len(shards))
    keys = list(shards.keys())
    free = [one for one in order if keys[one] not in taken]
    wanted = many or len(free) // rounds
    if repeat and len(free) < max(wanted, 1):
        free += [one for one in order if keys[one] in taken]
        wanted, rounds = many or len(order), 1
    elif repeat:
        rounds = 1
    if not 0 < wanted * rounds <= len(free):
        raise RunError(
            f"{rounds} rounds of {wanted} prompts need {max(wanted, 1) * rounds}, but there are {len(free)} of "
            f"{len(shards)} that no earlier round has answered. Bring more prompts, set fewer rounds or "
            "prompts_per_round, or rounds.repeat_prompts: true to answer some again."
        )
    return PromptSet(shards, free[:wanted])
