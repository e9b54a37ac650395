"""Generate: sample candidates from the policy, each with a seed of its own.

Same model, same decoding, only the draw differs (RLAIF-V calls it deconfounded): what sets two candidates
apart is then what they say, not who said it.
"""

from collections.abc import Sequence

from rlaifv_pl.feedback.engine import Completion, Engine, EngineError, Sampling
from rlaifv_pl.feedback.reasons import EMPTY
from rlaifv_pl.records import Candidate, Sample
from rlaifv_pl.seeds import derive

VERSION = 2
"""Of what is kept of a candidate, since it tells whether its model ended it: another number, drawn anew."""


def generate(
    policy: Engine, samples: Sequence[Sample], sampling: Sampling, seed: int
) -> list[list[Candidate]]:
    """Candidates for each sample, without claims yet.

    Args:
        seed: of the round; each candidate's own is derived from it, the sample's key and its number.

    Raises:
        EngineError: the policy cannot be asked.
    """
    seeds = [[derive(seed, sample.key, number) for number in range(sampling.n)] for sample in samples]
    drawn = policy.sample(samples, seeds, sampling)
    return [
        [_candidate(one, own) for one, own in zip(said, used, strict=True)]
        for said, used in zip(drawn, seeds, strict=True)
    ]


def _candidate(completion: Completion, seed: int) -> Candidate:
    if not isinstance(completion, Completion):
        raise EngineError(
            f"expected the engine's `sample` to give rlaifv_pl.feedback.engine.Completion(text, ended), got "
            f"{completion!r:.60}. Say of each answer whether the model ended it or a limit cut it off."
        )
    fault = None if completion.text.strip() else EMPTY
    return Candidate(text=completion.text, seed=seed, ended=completion.ended, fault=fault)
