"""Candidates sampled from the policy, each with a seed of its own.

Model and decoding are the same, only the draw differs (RLAIF-V calls it deconfounded), so that two candidates differ
in what they say and not in who said it.
"""

from collections.abc import Sequence

from rlaifv_pl.feedback.engines.engine import Completion, Engine, EngineError, Sampling
from rlaifv_pl.feedback.reasons import EMPTY
from rlaifv_pl.models.special_tokens import without_end
from rlaifv_pl.records import Candidate, Sample
from rlaifv_pl.seeds import derive

VERSION = 2
"""Version of a stored candidate, part of the recipe: candidates of another version are sampled again."""


def sample_candidates(
    policy: Engine, samples: Sequence[Sample], sampling: Sampling, seed: int
) -> list[list[Candidate]]:
    """Sample candidates for each prompt, without claims yet.

    Args:
        policy: the model that answers.
        samples: the prompts.
        sampling: number of candidates, temperature and length.
        seed: seed of the round; a candidate's own is derived from it, the sample's key and the candidate's number.

    Raises:
        BadSample: the policy cannot be asked a prompt.
        EngineError: the policy cannot be asked at all.
    """
    seeds = [[derive(seed, sample.key, number) for number in range(sampling.n)] for sample in samples]
    completions = policy.sample(samples, seeds, sampling)
    return [
        [_candidate(*pair) for pair in zip(*of_sample, strict=True)]
        for of_sample in zip(completions, seeds, strict=True)
    ]


def _candidate(completion: Completion, seed: int) -> Candidate:
    if not isinstance(completion, Completion):
        raise EngineError(
            f"expected the engine's `sample` to give rlaifv_pl.feedback.engines.engine.Completion(text, ended), got "
            f"{completion!r:.60}. Say of each answer whether the model ended it or a limit cut it off."
        )
    text = without_end(completion.text)
    fault = None if text.strip() else EMPTY
    return Candidate(text=text, seed=seed, ended=completion.ended, fault=fault)
