"""Settings and prompts of a pass of feedback."""

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
    """Settings that turn a policy's own answers into preference pairs; the defaults are RLAIF-V's.

    Args:
        splitter: divides a candidate into claims.
        labeler: judges the claims.
        sampling: number of candidates, temperature and length.
        combine: computes a candidate's score from its verdicts.
        pairing: rule for the candidates of a prompt that make a pair.
        balance: leave out pairs until both sides are equally long on average.
        truncated: treatment of candidates that `sampling.max_new_tokens` cut off. `leave_out` counts them as
            `candidate/truncated`. `keep` removes their last, unfinished sentence and trains on them without an end, so
            that no policy learns to stop there.
        gate: known questions that the labeler must be able to answer; none is asked unless given.
        prompts_per_part: prompts per chunk, which is one file; a kill loses at most one stage's work on so many.
        link_duplicate_images: store an image that several pairs of a shard share once. This saves its bytes, but other
            readers lose the image: `webdataset` skips links.
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
        links = {"link_duplicate_images": True} if self.link_duplicate_images else {}
        return {"combine": combine, "pair": asdict(self.pairing), "balance": self.balance, **links}


class PromptSet(NamedTuple):
    """Samples whose prompts are to be answered."""

    shards: ShardSet
    numbers: Sequence[int]
    """Numbers of the samples in `shards`, in the order in which they are answered."""

    def read(self, places: range) -> list[Sample]:
        """Return the samples at some places of `numbers`."""
        return [self.shards[self.numbers[place]] for place in places]

    def keys(self) -> list[str]:
        """Return the keys of all samples, without reading any."""
        keys = list(self.shards.keys())
        return [keys[number] for number in self.numbers]

    def recipe(self) -> dict[str, Any]:
        """Return what identifies the samples, as JSON."""
        return {"shards": self.parents(), "numbers": hash_json(list(map(int, self.numbers)))}

    def parents(self) -> list[str]:
        """Return hashes of the manifests of `shards`."""
        return [manifest.hash for manifest in self.shards.manifests]
