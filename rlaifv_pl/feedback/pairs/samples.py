"""The last stage of feedback: judged candidates become pairs, and pairs become the samples of shards."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from rlaifv_pl.data.manifest import hash_json
from rlaifv_pl.data.shard_writer import finished_manifest
from rlaifv_pl.feedback.candidates.candidate_json import evidence
from rlaifv_pl.feedback.config import FeedbackConfig
from rlaifv_pl.feedback.judges.labeler import low_mass
from rlaifv_pl.feedback.pairs.balance import balance_lengths
from rlaifv_pl.feedback.pairs.left_out import Examples
from rlaifv_pl.feedback.pairs.pairing import LeftOut, pair, score_of
from rlaifv_pl.feedback.preconditions import pair_key
from rlaifv_pl.feedback.reasons import is_unfinished
from rlaifv_pl.records import Candidate, Pair, Sample
from rlaifv_pl.seeds import derive


@dataclass
class Outcome:
    """Pairs of a pass of feedback, and the counts for its manifest."""

    pairs: list[tuple[int, Pair]] = field(default_factory=list)
    """Pairs with the index of their prompt, in the order of the prompts."""
    drops: Counter[str] = field(default_factory=Counter)
    """Number of prompts, candidates, claims and pairs that were left out, by reason."""
    examples: Examples = field(default_factory=Examples)
    """The first few of them, of each reason."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Figures for the manifest."""

    def leave_out(self, index: int, left_out: LeftOut, count: int = 1) -> None:
        """Count what is left out of a prompt, and keep it as an example."""
        self.drops[left_out.reason] += count
        self.examples.add(index, left_out)


def scored(candidate: Candidate, combine: Callable[[Candidate], float]) -> Candidate:
    """Return the candidate with its score; nobody judged one without claims."""
    # Any rule may count minus nothing, which is a zero like any other.
    return replace(candidate, score=combine(candidate) + 0) if candidate.verdicts else candidate


class Judged(NamedTuple):
    """A prompt with its scored candidates."""

    key: str
    candidates: Sequence[Candidate]
    fault: str | None = None
    """Reason why the prompt could not be answered at all."""


def make_pairs(judged: Iterable[Judged], feedback: FeedbackConfig, seed: int) -> Outcome:
    """Pair the scored candidates of each prompt, and balance the lengths of all pairs."""
    outcome, masses, counts = Outcome(), Counter[str](), Counter[str]()
    for index, (key, candidates, fault) in enumerate(judged):
        counts["prompts"] += 1
        if fault is not None:
            outcome.leave_out(index, LeftOut(f"prompt/{fault}", ()))
            continue
        result = pair(candidates, feedback.pairing, derive(seed, "pair", key))
        outcome.pairs += [(index, one) for one in result.pairs]
        for left_out in result.left_out:
            outcome.leave_out(index, left_out)
        for candidate in candidates:
            for reason, count in Counter(candidate.dropped_claims).items():
                outcome.leave_out(index, LeftOut(f"claim/{reason}", (candidate,)), count)
        if not result.pairs:
            outcome.leave_out(index, LeftOut("prompt/no_pair", _extremes(candidates)))
        low, verdicts = low_mass(candidates)
        masses.update(low=low, all=verdicts)
        counts.update(candidates=len(candidates), claims=verdicts)
        if is_unfinished(candidates):
            counts["unfinished"] += 1
    outcome.notes = {**counts, "low_mass": masses["low"] / masses["all"] if masses["all"] else 0.0}
    if feedback.balance and outcome.pairs:
        _balance(outcome)
    outcome.notes |= _mean_lengths([one for _, one in outcome.pairs])
    return outcome


def _extremes(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return the highest and the lowest score; where fewer than two were judged, the first two."""
    judged = sorted((one for one in candidates if one.score is not None), key=score_of, reverse=True)
    return (judged[0], judged[-1]) if len(judged) > 1 else tuple(candidates[:2])


def _balance(outcome: Outcome) -> None:
    threshold, kept = balance_lengths([one for _, one in outcome.pairs])
    pairs, outcome.pairs = outcome.pairs, []
    for (index, one), keep in zip(pairs, kept, strict=True):
        if keep:
            outcome.pairs.append((index, one))
        else:
            outcome.leave_out(index, LeftOut("pair/length_balance", (one.chosen, one.rejected)))
    outcome.notes["length_threshold"] = threshold


def _mean_lengths(pairs: Sequence[Pair]) -> dict[str, float]:
    if not pairs:
        return {}
    sides = {"chosen": [one.chosen for one in pairs], "rejected": [one.rejected for one in pairs]}
    words = {
        f"{side}_words": sum(len(each.text.split()) for each in candidates) / len(pairs)
        for side, candidates in sides.items()
    }
    return words | {"gap": sum(score_of(one.chosen) - score_of(one.rejected) for one in pairs) / len(pairs)}


def pair_samples(
    pairs: Iterable[tuple[int, Pair]], read: Callable[[int], Sample], provenance: Mapping[str, Any]
) -> Iterator[Sample]:
    """Yield the preference samples of pairs.

    Args:
        pairs: pairs with the index of their prompt, in order.
        read: from the index of a prompt to its sample.
        provenance: added to that of each prompt.
    """
    last, number = -1, 0
    for index, one in pairs:
        last, number = index, number + 1 if index == last else 0
        prompt = read(index)
        yield Sample(
            key=pair_key(prompt.key, number),
            prompt=prompt.prompt,
            images=prompt.images,
            chosen=one.chosen.text,
            rejected=one.rejected.text,
            truncated=tuple(side for side in ("chosen", "rejected") if not getattr(one, side).ended),
            evidence={"chosen": evidence(one.chosen), "rejected": evidence(one.rejected)},
            provenance={**prompt.provenance, **provenance},
            extra=prompt.extra,
        )


def is_finished(out: Path, recipe: Mapping[str, Any]) -> bool:
    """Whether the shards of a recipe are there, finished."""
    manifest = finished_manifest(out)
    return manifest is not None and manifest.recipe_hash == hash_json(recipe)
