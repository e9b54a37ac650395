"""Generate: sample candidates from the policy, each with a seed of its own.

Same model, same decoding, only the draw differs (RLAIF-V calls it deconfounded): what sets two candidates
apart is then what they say, not who said it.
"""

from collections.abc import Sequence

from rlaifv_pl.feedback.engine import Engine, Sampling
from rlaifv_pl.records import Candidate, Sample
from rlaifv_pl.seeds import derive


def generate(
    policy: Engine, samples: Sequence[Sample], sampling: Sampling, seed: int
) -> list[list[Candidate]]:
    """Candidates for each sample, without claims yet.

    Args:
        seed: of the round; each candidate's own is derived from it, the sample's key and its number.
    """
    seeds = [[derive(seed, sample.key, number) for number in range(sampling.n)] for sample in samples]
    texts = policy.sample(samples, seeds, sampling)
    return [
        [Candidate(text=text, seed=own) for text, own in zip(said, used, strict=True)]
        for said, used in zip(texts, seeds, strict=True)
    ]
