"""The end of a pass of feedback: judged candidates become pairs, and pairs become the samples of shards."""

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
from rlaifv_pl.feedback.pairs.pairing import LeftOut, pair
from rlaifv_pl.feedback.preconditions import pair_key
from rlaifv_pl.feedback.reasons import is_unfinished
from rlaifv_pl.records import Candidate, Pair, Sample
from rlaifv_pl.seeds import derive


@dataclass
class Outcome:
    """What a pass of feedback comes to."""

    pairs: list[tuple[int, Pair]] = field(default_factory=list)
    """With the place of its prompt, in the order of the prompts."""
    drops: Counter[str] = field(default_factory=Counter)
    """Prompts, candidates and pairs that were left out, by reason."""
    examples: Examples = field(default_factory=Examples)
    """The first few of them, of each reason."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Figures for the manifest."""


def scored(candidate: Candidate, combine: Callable[[Candidate], float]) -> Candidate:
    """The candidate with its score; nobody judged one without claims."""
    # Any rule may count minus nothing, which is a zero like any other.
    return replace(candidate, score=combine(candidate) + 0) if candidate.verdicts else candidate


class Judged(NamedTuple):
    """One prompt with its scored candidates."""

    key: str
    candidates: Sequence[Candidate]
    fault: str | None = None
    """Why the prompt could not be answered at all."""


def make_pairs(judged: Iterable[Judged], feedback: FeedbackConfig, seed: int) -> Outcome:
    """Pairs among the scored candidates of each prompt, and the balance of their lengths."""
    outcome, masses, counts = Outcome(), Counter[str](), Counter[str]()
    for place, (key, candidates, fault) in enumerate(judged):
        if fault is not None:
            outcome.drops[f"prompt/{fault}"] += 1
            outcome.examples.add(place, LeftOut(f"prompt/{fault}", ()))
            counts.update(prompts=1)
            continue
        found = pair(candidates, feedback.pairing, derive(seed, "pair", key))
        outcome.pairs += [(place, one) for one in found.pairs]
        outcome.drops += found.drops
        for one in found.left_out:
            outcome.examples.add(place, one)
        if not found.pairs:
            reason = "prompt/no_pair"
            outcome.drops[reason] += 1
            outcome.examples.add(place, LeftOut(reason, _furthest(candidates)))
        low, verdicts = low_mass(candidates)
        masses.update(low=low, all=verdicts)
        counts.update(prompts=1, candidates=len(candidates), claims=verdicts)
        if is_unfinished(candidates):
            counts["unfinished"] += 1
    outcome.notes = {**counts, "low_mass": masses["low"] / masses["all"] if masses["all"] else 0.0}
    if feedback.balance and outcome.pairs:
        _balance(outcome)
    outcome.notes |= _lengths([one for _, one in outcome.pairs])
    outcome.drops = +outcome.drops
    return outcome


def _furthest(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The highest and the lowest score; where fewer than two were judged, the first two."""
    judged = sorted((one for one in candidates if one.score is not None), key=lambda one: -one.score)
    return (judged[0], judged[-1]) if len(judged) > 1 else tuple(candidates[:2])


def _balance(outcome: Outcome) -> None:
    threshold, kept = balance_lengths([one for _, one in outcome.pairs])
    for (place, one), keep in zip(outcome.pairs, kept, strict=True):
        if not keep:
            outcome.examples.add(place, LeftOut("pair/length_balance", (one.chosen, one.rejected)))
    outcome.pairs = [found for found, keep in zip(outcome.pairs, kept, strict=True) if keep]
    outcome.drops["pair/length_balance"] = len(kept) - sum(kept)
    outcome.notes["length_threshold"] = threshold


def _lengths(pairs: Sequence[Pair]) -> dict[str, float]:
    if not pairs:
        return {}
    sides = {"chosen": [one.chosen for one in pairs], "rejected": [one.rejected for one in pairs]}
    words = {
        f"{side}_words": sum(len(each.text.split()) for each in found) / len(pairs)
        for side, found in sides.items()
    }
    return words | {"gap": sum(one.chosen.score - one.rejected.score for one in pairs) / len(pairs)}


def pair_samples(
    pairs: Iterable[tuple[int, Pair]], read: Callable[[int], Sample], provenance: Mapping[str, Any]
) -> Iterator[Sample]:
    """The preference samples of pairs.

    Args:
        pairs: with the place of their prompt, in order.
        read: the sample of a place.
        provenance: goes into each.
    """
    last, number = -1, 0
    for place, found in pairs:
        last, number = place, number + 1 if place == last else 0
        prompt = read(place)
        yield Sample(
            key=pair_key(prompt.key, number),
            prompt=prompt.prompt,
            images=prompt.images,
            chosen=found.chosen.text,
            rejected=found.rejected.text,
            truncated=tuple(side for side in ("chosen", "rejected") if not getattr(found, side).ended),
            evidence={"chosen": evidence(found.chosen), "rejected": evidence(found.rejected)},
            provenance={**prompt.provenance, **provenance},
            extra=prompt.extra,
        )


def is_finished(out: Path, recipe: Mapping[str, Any]) -> bool:
    """Whether the shards of a recipe are there, finished."""
    manifest = finished_manifest(out)
    return manifest is not None and manifest.recipe_hash == hash_json(recipe)
