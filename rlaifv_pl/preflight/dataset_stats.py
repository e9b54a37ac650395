"""What samples come to, read as training reads them, and the batches that would be dealt of them."""

from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track

from rlaifv_pl.data.bad_samples import BadSample
from rlaifv_pl.data.batching import (
    SampleSizes,
    epoch_order,
    group_by_prompt,
    pack_all_batches,
    sort_by_length,
)
from rlaifv_pl.data.collate import Collator
from rlaifv_pl.data.datamodule import AlignmentDataModule
from rlaifv_pl.data.sample_lengths import PROMPT, ROW_TOKENS, TREE_TOKENS, Layout, measure_sample
from rlaifv_pl.data.shards import ShardSet, ShardWriter
from rlaifv_pl.models.prefix_tree import Branch
from rlaifv_pl.records import Sample
from rlaifv_pl.seeds import derive, run_seed

SHOWN_KEYS = 3
"""Of the samples that cannot be used, for each reason."""

FEW = 16
"""Prompts that stand for all of a run of rounds."""
FILLER = "there is a red circle left of the blue square and two cats on the table " * 1000


class Read(NamedTuple):
    """What a sample comes to."""

    tree: int
    """Tokens as a tree."""
    rows: int
    """Tokens as rows, with their padding."""
    longest: int
    """Tokens of the longest row."""
    images: int
    """Image tokens of the tree."""
    targets: int
    prompt: int
    """Equal for samples of the same prompt and images."""


UNUSABLE = Read(0, 0, 0, 0, 0, 0)


@dataclass
class DatasetStats:
    """Samples of a set, and what is wrong with some."""

    samples: ShardSet
    numbers: list[int]
    """Of those that were read, in the order of the set."""
    reads: list[Read] = field(default_factory=list)
    faults: dict[str, list[str]] = field(default_factory=dict)
    """Where those lie that cannot be used, by reason."""
    first_fault: BadSample | None = None

    @property
    def is_whole(self) -> bool:
        """Whether every sample was read."""
        return len(self.numbers) == len(self.samples)

    def column(self, name: str) -> np.ndarray:
        """(n,) one figure of all samples that were read; 0 of those that cannot be used."""
        return np.array([getattr(read, name) for read in self.reads], dtype=np.int64)


def survey(samples: ShardSet, collate: Collator, limit: int) -> DatasetStats:
    """Read samples as the objective will; a random part if there are more than `limit`."""
    numbers = list(range(len(samples)))
    if len(numbers) > limit:
        rng = np.random.default_rng(derive(run_seed(), "preflight"))
        numbers = sorted(rng.choice(len(samples), limit, replace=False).tolist())
    found = DatasetStats(samples, numbers)
    for number in track(numbers, "samples", console=Console(stderr=True), disable=len(numbers) < SHOWN_KEYS):
        try:
            found.reads.append(_read(samples, number, collate))
        except BadSample as error:
            found.reads.append(UNUSABLE)
            found.faults.setdefault(str(error.reason), []).append(error.where)
            found.first_fault = found.first_fault or error
    return found


def _read(samples: ShardSet, number: int, collate: Collator) -> Read:
    sample = samples[number]
    batch = collate([sample])
    known = measure_sample(sample, batch)
    ids, width = batch.tokens.rows["input_ids"], batch.tokens.rows["input_ids"].shape[1]
    is_image = np.isin(ids.numpy(), collate.chat.processor.image_token_ids)
    branches = batch.layout.branches or [Branch(row, 0, width) for row in range(len(ids))]
    own = [is_image[row, start:stop].sum() for row, (_, start, stop) in enumerate(branches)]
    longest = int(batch.tokens.rows["attention_mask"].sum(1).max())
    return Read(
        int(known[TREE_TOKENS]),
        int(known[ROW_TOKENS]),
        longest,
        int(sum(own)),
        len(batch.tokens.labels),
        int(known[PROMPT]),
    )


@dataclass(frozen=True)
class Batches:
    """Those that an epoch deals, of what was surveyed."""

    dealt: list[list[int]]
    """Places in the survey of each batch of a device."""
    per_epoch: int
    """Of a rank, in an epoch of all samples."""
    tokens: np.ndarray
    """(n,) cells or columns of each, padding included."""
    padding: float
    """Share of them that hold no token."""

    @property
    def largest(self) -> list[int]:
        """The batch that takes most."""
        return self.dealt[int(self.tokens.argmax())]


def batches(
    found: DatasetStats, data: AlignmentDataModule, layout: Layout, world: int, count: int
) -> Batches:
    """The first epoch's batches; of a part of the samples, those that this part would make.

    Args:
        found: what the samples come to.
        data: how they are dealt.
        layout: how they are laid out.
        world: number of processes.
        count: samples of an epoch, of which those that were read may be a part.
    """
    tokens = found.column("rows" if layout == "rows" else "tree")
    sizes = SampleSizes(tokens, found.column("prompt"), is_padded=layout != "packed")
    order = epoch_order(found.samples.lengths, run_seed(), 0, data.shuffle_window)
    if not found.is_whole:
        places = {number: place for place, number in enumerate(found.numbers)}
        order = np.array([places[number] for number in order.tolist() if number in places])
    if data.group_by:
        order = group_by_prompt(order, sizes.prompt)
    else:
        sizes = sizes._replace(prompt=np.arange(len(tokens)))
    if data.length_bucket:
        order = sort_by_length(order, sizes, data.length_bucket, derive(run_seed(), "lengths", 0))
    is_sized = data.budget.tokens or data.group_by or data.length_bucket
    shares = pack_all_batches(order, world, data.budget, sizes if is_sized else None)
    dealt = [mine for share in shares for mine in share if mine]
    laid = np.array([_laid_out(tokens[mine], sizes.is_padded) for mine in dealt], dtype=np.int64)
    held = (
        sum(int(found.column("tree")[mine].sum()) for mine in dealt) if layout != "rows" else int(laid.sum())
    )
    if count == len(found.numbers):
        per_epoch = len(shares)
    elif is_sized:
        per_epoch = max(1, round(len(shares) * count / len(found.numbers)))
    else:
        per_epoch = ceil(count / ((data.budget.samples or 1) * world))
    return Batches(dealt, per_epoch, laid, 1 - held / max(1, int(laid.sum())))


def _laid_out(tokens: np.ndarray, is_padded: bool) -> int:
    return len(tokens) * int(tokens.max(initial=0)) if is_padded else int(tokens.sum())


def stand_ins(prompts: ShardSet, length: int, processor: Any, folder: Path) -> Path:
    """Shards of a few prompts with answers of `length` tokens, as long as a round's can be."""
    # Never decoded: a tokenizer that does not know all words would write its special token for one.
    ends = processor.tokenizer(FILLER, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
    words = FILLER[: ends[:length][-1][1]]
    out = folder / "stand_ins"
    with ShardWriter(out, recipe={"of": [manifest.hash for manifest in prompts.manifests]}) as writer:
        for number in range(min(FEW, len(prompts))):
            sample = prompts[number]
            # Other from the first token on, so that they share nothing.
            writer.write(
                Sample(
                    key=sample.key,
                    prompt=sample.prompt,
                    images=sample.images,
                    chosen=f"Yes, {words}",
                    rejected=f"No, {words}",
                )
            )
    return out
