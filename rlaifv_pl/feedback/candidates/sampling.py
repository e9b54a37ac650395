"""Generate: sample candidates from the policy, each with a seed of its own.

Same model, same decoding, only the draw differs (RLAIF-V calls it deconfounded): what sets two candidates
apart is then what they say, not who said it.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from rlaifv_pl.data.bad_samples import BadSample
from rlaifv_pl.data.schema import check_prompt
from rlaifv_pl.feedback.engines.engine import Completion, Engine, EngineError, Sampling
from rlaifv_pl.feedback.reasons import EMPTY
from rlaifv_pl.models.special_tokens import without_end
from rlaifv_pl.records import Candidate, Sample
from rlaifv_pl.seeds import derive

VERSION = 2
"""Of what is kept of a candidate, since it tells whether its model ended it: another number, drawn anew."""

Made = TypeVar("Made")


def sample_candidates(
    policy: Engine, samples: Sequence[Sample], sampling: Sampling, seed: int
) -> list[list[Candidate]]:
    """Candidates for each sample, without claims yet.

    Args:
        seed: of the round; each candidate's own is derived from it, the sample's key and its number.

    Raises:
        BadSample: as `Engine.sample`.
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
            f"expected the engine's `sample` to give rlaifv_pl.feedback.engines.engine.Completion(text, ended), got "
            f"{completion!r:.60}. Say of each answer whether the model ended it or a limit cut it off."
        )
    text = without_end(completion.text)
    fault = None if text.strip() else EMPTY
    return Candidate(text=text, seed=seed, ended=completion.ended, fault=fault)


def of_each(
    samples: Sequence[Sample], work: Callable[[Sequence[Sample]], Sequence[Made]]
) -> list[Made | BadSample]:
    """Results of work on prompts, or why one cannot be asked: a prompt that is bad never ends the work on others.

    Args:
        work: makes one result for each sample that it is given, or raises BadSample about `sample <key>`, which it is
            not given again.

    Raises:
        BadSample: one that is about none of them.
    """
    names = [f"sample {sample.key}" for sample in samples]
    faults = {
        place: fault
        for place, (sample, name) in enumerate(zip(samples, names, strict=True))
        if (fault := _fault(sample, name)) is not None
    }
    while True:
        good = [place for place in range(len(samples)) if place not in faults]
        try:
            made = dict(zip(good, work([samples[place] for place in good]) if good else (), strict=True))
            return [faults[place] if place in faults else made[place] for place in range(len(samples))]
        except BadSample as fault:
            if (place := next((one for one in good if names[one] == fault.where), None)) is None:
                raise
            faults[place] = fault


def _fault(sample: Sample, name: str) -> BadSample | None:
    try:
        check_prompt(sample, name)
    except BadSample as fault:
        return fault
    return None
