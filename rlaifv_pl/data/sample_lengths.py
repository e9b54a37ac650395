"""Sizes of samples, and which share a prompt: measured once and kept beside the shards."""

import hashlib
import heapq
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch.utils.data import Dataset

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.batching import BatchBudget, SampleSizes
from rlaifv_pl.data.collate import OnBadSample
from rlaifv_pl.data.manifest import hash_json
from rlaifv_pl.data.precompute import PrecomputeTask, precompute_missing
from rlaifv_pl.data.protocols import Collate
from rlaifv_pl.data.shards import ShardSet
from rlaifv_pl.data.sidecar import CachedTensors, SidecarError, Sidecars
from rlaifv_pl.models.vlm import Batch
from rlaifv_pl.records import Sample

TREE_TOKENS, ROW_TOKENS, PROMPT = "tree", "rows", "prompt"
"""Tensor names of a sidecar: a sample's tokens as a tree, its tokens as rows with their padding, a hash of its prompt.
An unusable sample has no tokens."""

Layout = Literal["packed", "trees", "rows"]


class LengthSurvey:
    """Sizes of all samples, measured by reading each once as the objective will.

    Args:
        samples: samples of one or more directories.
        reading: everything that decides their tokens: objective, tokenizer, processor.
        collate: makes a batch of samples.
        num_workers: processes that read.
    """

    def __init__(
        self, samples: ShardSet, reading: Mapping[str, Any], collate: Collate, num_workers: int
    ) -> None:
        self.samples, self.collate, self.num_workers = samples, collate, num_workers
        self.sidecars = Sidecars(samples, "sizes", reading)

    def make(self, trainer: Trainer) -> None:
        """Measure the shards that have no sizes yet, divided among the processes.

        Raises:
            BadSample: if bad samples are not to be left out.
        """
        task = PrecomputeTask("sizes of samples", _Measured(self.samples, self.collate), _good)
        precompute_missing(self.sidecars, task, trainer, self.num_workers)

    def sizes(self, layout: Layout) -> SampleSizes:
        """Return the sizes of the samples as they are laid out.

        Args:
            layout: `packed` without padding, `trees` padded to the longest, or padded `rows`.

        Raises:
            SidecarError: a file is damaged.
        """
        parts = [self._whole(shard) for shard, size in enumerate(self.samples.lengths) if size]
        name = ROW_TOKENS if layout == "rows" else TREE_TOKENS
        tokens, prompt = (torch.cat([part[of] for part in parts]).numpy() for of in (name, PROMPT))
        return SampleSizes(tokens, prompt, is_padded=layout != "packed")

    def _whole(self, shard: int) -> CachedTensors:
        part, count = self.sidecars.whole(shard), len(self.samples.shards[shard])
        for name in (TREE_TOKENS, ROW_TOKENS, PROMPT):
            value = part.get(name, torch.zeros(0))
            if value.shape != (count,) or value.dtype != torch.long:
                raise SidecarError(
                    f"{self.sidecars.path(shard)} has no {name} for each of {count} samples. Delete it, and it is made "
                    "again."
                )
        return part


def processor_hash(processor: Any) -> str:
    """Return a hash of what decides a sample's tokens: image processing, tokenizer and chat template."""
    words = json.loads(processor.tokenizer.backend_tokenizer.to_str())
    # Padding and truncation belong to the last call, not to the tokenizer.
    del words["padding"], words["truncation"]
    return hash_json((processor.to_json_string(), words, processor.chat_template))


class _Measured(Dataset):
    def __init__(self, samples: ShardSet, collate: Collate) -> None:
        self.samples, self.collate = samples, collate

    def __getitem__(self, index: int) -> CachedTensors | BadSample:
        try:
            sample = self.samples[index]
            return measure_sample(sample, self.collate([sample]))
        except BadSample as error:
            return error


def _good(measured: CachedTensors | BadSample) -> CachedTensors:
    if isinstance(measured, BadSample):
        raise measured
    return measured


def measure_sample(sample: Sample, batch: Batch) -> CachedTensors:
    """Return the sizes of a sample, given the batch of it alone."""
    ids = batch.tokens.rows.get("input_ids", torch.zeros(0))
    own = sum(branch.stop - branch.start for branch in batch.layout.branches or ())
    values = {TREE_TOKENS: own or ids.numel(), ROW_TOKENS: ids.numel(), PROMPT: _prompt(sample)}
    return {name: torch.tensor([value]) for name, value in values.items()}


def _prompt(sample: Sample) -> int:
    """Return a hash of prompt and images."""
    digest = hashlib.sha256(json.dumps(sample.prompt, sort_keys=True).encode())
    for image in sample.images:
        digest.update(hashlib.sha256(image).digest())
    return int.from_bytes(digest.digest()[:8], signed=True)


NUM_TRIED = 32
"""Samples that are tried first: one that is too long for a model is among them, unless its images make it so."""


def longest(samples: ShardSet, count: int = NUM_TRIED) -> Sequence[int]:
    """Return the indices of the samples with the longest texts, the longest first; no sample is read."""
    sizes = list(chain.from_iterable(shard.text_sizes() for shard in samples.shards))
    return heapq.nlargest(count, range(len(sizes)), key=sizes.__getitem__)


def try_longest(samples: ShardSet, collate: Collate, on_bad_sample: OnBadSample) -> None:
    """Make batches of the longest samples, so that one that cannot be trained on ends a run at its start.

    Samples that are to be left out are left out and counted later, when their turn comes.

    Raises:
        BadSample: a sample cannot be trained on, and `on_bad_sample` is `raise`.
    """
    for index in longest(samples):
        try:
            collate([samples[index]])
        except BadSample:
            if on_bad_sample == "raise":
                raise


def check_budget(budget: BatchBudget, where: Callable[[int], str], tokens: np.ndarray) -> None:
    """Refuse a sample that alone exceeds the tokens of a device and batch.

    Args:
        budget: limits of a device.
        where: returns the shard and key of a sample, by its index.
        tokens: (n,) tokens of each sample.

    Raises:
        BadSample: `too_long`, for the largest sample.
    """
    if budget.tokens and tokens.max(initial=0) > budget.tokens:
        largest = int(tokens.argmax())
        raise BadSample(
            Reason.TOO_LONG,
            where(largest),
            f"{tokens[largest]} tokens, and data.max_tokens allows a device {budget.tokens}",
        )
