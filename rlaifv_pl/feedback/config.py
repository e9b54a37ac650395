"""What a pass of feedback is made of, as a config says it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from rlaifv_pl.data.manifest import hash_json
from rlaifv_pl.data.shards import ShardSet
from rlaifv_pl.feedback.claims.splitter import Splitter
from rlaifv_pl.feedback.engines.engine import Sampling
from rlaifv_pl.feedback.judges.combine import minus_rejected
from rlaifv_pl.feedback.judges.gate import Gate
from rlaifv_pl.feedback.judges.labeler import Labeler
from rlaifv_pl.feedback.pairs.pairing import PairRule
from rlaifv_pl.records import Candidate, Sample


@dataclass(kw_only=True)
class FeedbackConfig:
    """How preference pairs are made of a policy's own answers; the defaults are RLAIF-V's.

    Args:
        splitter: divides a candidate into claims.
        labeler: judges the claims.
        sampling: how many candidates, and how they are drawn.
        combine: the verdicts on a candidate to its score.
        pairing: which two candidates of a prompt make a pair.
        balance: leave out pairs until both sides are equally long on average.
        truncated: what becomes of candidates that `sampling.max_new_tokens` cut off. Left out (`leave_out`) they are
            counted as `candidate/truncated`. Kept (`keep`) they lose their last, unfinished sentence, and are trained
            on without an end, so that no policy learns to stop there.
        gate: known questions that the labeler must be able to answer; none is asked unless given.
        prompts_per_part: prompts between two files; a kill loses at most one stage's work on so many.
        link_duplicate_images: store the image of several pairs of a shard once. That saves its bytes, and costs other
            readers the image: `webdataset` skips the links that stand for it.
    """

    splitter: Splitter
    labeler: Labeler
    sampling: Sampling = field(default_factory=Sampling)
    combine: Callable[[Candidate], float] = minus_rejected
    pairing: PairRule = field(default_factory=PairRule)
    balance: bool = True
    truncated: Literal["leave_out", "keep"] = "leave_out"
    gate: Gate | None = None
    prompts_per_part: int = 32
    link_duplicate_images: bool = False

    def pair_recipe(self) -> dict[str, Any]:
        """Return the settings that decide pairs once candidates are judged, as JSON."""
        combine = f"{self.combine.__module__}.{self.combine.__qualname__}"
        linked = {"link_duplicate_images": True} if self.link_duplicate_images else {}
        return {"combine": combine, "pair": asdict(self.pairing), "balance": self.balance, **linked}


class PromptSet(NamedTuple):
    """Samples whose prompts are answered."""

    shards: ShardSet
    numbers: Sequence[int]
    """Of the samples, in the order in which they are answered."""

    def read(self, some: range) -> list[Sample]:
        """Some of them, by place in `numbers`."""
        return [self.shards[self.numbers[place]] for place in some]

    def keys(self) -> list[str]:
        """Their keys, without reading any."""
        keys = list(self.shards.keys())
        return [keys[number] for number in self.numbers]

    def recipe(self) -> dict[str, Any]:
        """Which they are."""
        return {"shards": self.parents(), "numbers": hash_json(list(map(int, self.numbers)))}

    def parents(self) -> list[str]:
        """Hashes of the manifests they come from."""
        return [manifest.hash for manifest in self.shards.manifests]
