"""Precomputed reference log-ps: from a batch to sidecars, and back."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from rlaifv_pl.data.sidecar import CachedTensors, SidecarError
from rlaifv_pl.models.vlm import Batch

LOGPS, READING = "logps", "reading"
"""Tensor names of a sidecar: log-ps of a sample's targets in nats, and a hash of how it was read."""

READINGS = 2
"""Version of the hash `READING`; log-ps of another version are computed again."""

UNKNOWN: CachedTensors = {LOGPS: torch.zeros(0), READING: torch.zeros(1, dtype=torch.long)}
"""Entry of a sample that could not be used."""


def split_by_sample(batch: Batch, logps: Tensor) -> list[CachedTensors]:
    """Split the (M,) log-ps of a batch's targets into the entries of its samples."""
    logps, owner = logps.cpu(), (batch.tokens.sequence_id % len(batch.keys)).cpu()
    readings = _readings(batch)
    return [{LOGPS: logps[owner == at], READING: readings[at : at + 1]} for at in range(len(batch.keys))]


def assemble_logps(batch: Batch, known: Sequence[CachedTensors]) -> Tensor:
    """Join the entries of a batch's samples to (M,) log-ps of its targets.

    Raises:
        SidecarError: a sample was read otherwise then: other tokens, or other targets.
    """
    readings, owner = _readings(batch), batch.tokens.sequence_id % len(batch.keys)
    targets = torch.bincount(owner, minlength=len(batch.keys)).tolist()
    for at, (key, value) in enumerate(zip(batch.keys, known, strict=True)):
        is_same = READING in value and torch.equal(value[READING], readings[at : at + 1])
        if not is_same or LOGPS not in value or value[LOGPS].shape != (targets[at],):
            raise SidecarError(
                f"sample {key}: its reference log-ps were computed for other tokens than it has now, so tokenizer, "
                "chat template, objective or model.max_length changed since. Delete the directories reference-* "
                "beside the shards, or in data.cache_dir: they are made again."
            )
    logps = torch.empty(len(owner), dtype=known[0][LOGPS].dtype)
    for at, value in enumerate(known):
        logps[owner == at] = value[LOGPS]
    return logps


def _readings(batch: Batch) -> Tensor:
    """Return (B,) hashes of everything that a sample's log-ps depend on beside weights and the shard's bytes.

    Hashed are, for each row with targets, its tokens, which of the sample's images it shows, and the place, token and
    part of each target.
    """
    count, width = len(batch.keys), batch.tokens.rows["input_ids"].shape[1]
    row, at = batch.tokens.logit_index // width, batch.tokens.logit_index % width
    part, owner = batch.tokens.sequence_id // count, batch.tokens.sequence_id % count
    targets = torch.stack([at, batch.tokens.labels, part], 1)
    hashes = []
    for sample in range(count):
        digest = hashlib.sha256()
        for own in row[owner == sample].unique():
            mine = targets[(owner == sample) & (row == own)]
            # What stands behind the last target decides nothing: in a longer batch it is padding.
            tokens = batch.tokens.rows["input_ids"][own, : mine[:, 0].max() + 2]
            _, *view = batch.layout.views[int(own) % batch.layout.num_trees]
            digest.update(repr((view, tokens.tolist(), mine.tolist())).encode())
        hashes.append(int.from_bytes(digest.digest()[:8], signed=True))
    return torch.tensor(hashes)
