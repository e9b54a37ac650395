"""Features of a frozen vision tower that were computed beforehand: of which pixels, and from sidecars to a batch."""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rlaifv_pl.data.bad_samples import BadSample
from rlaifv_pl.data.images import open_images
from rlaifv_pl.data.shards import ShardSet
from rlaifv_pl.data.sidecar import CachedTensors, SidecarError, Sidecars
from rlaifv_pl.models.chat import Chat, message_with_images
from rlaifv_pl.models.tokenization import ImagesRefused
from rlaifv_pl.models.vlm import Batch
from rlaifv_pl.records import Sample

FIRST = "first"
"""Name of the place in the shard of the first sample with the same images, with which alone they are kept."""

Pixels = dict[str, Tensor]
"""Processor outputs of some images; empty of none."""


class SampleImages(NamedTuple):
    """The images of a sample as the tower takes them, each side by itself."""

    number: int
    """Of the sample."""
    digest: bytes
    """Equal for equal images."""
    own: Pixels
    rejected: Pixels


class SampleImageInputs(Dataset):
    """Image inputs of samples, empty for one that cannot be read: training decides whether that stops a run."""

    def __init__(self, samples: ShardSet, chat: Chat) -> None:
        self.samples, self.chat = samples, chat

    def __getitem__(self, index: int) -> SampleImages:
        try:
            sample = self.samples[index]
            sides = [open_images(images, sample.key) for images in (sample.images, sample.rejected_images)]
            shown = [image_inputs(self.chat, [images]) for images in sides]
        except (BadSample, ImagesRefused):
            return SampleImages(index, b"", {}, {})
        hashes = [
            [hashlib.sha256(data).digest() for data in images]
            for images in (sample.images, sample.rejected_images)
        ]
        return SampleImages(index, repr(hashes).encode(), *shown)


def image_inputs(chat: Chat, images: Sequence[Sequence]) -> Pixels:
    """Return the processor outputs of the images of some trees."""
    if not any(images):
        return {}
    texts = [chat.render([message_with_images("a", len(group))], ask=False) for group in images]
    return chat.open(texts, images)[1]


def feature_name(leaf: int, rejected: bool) -> str:
    """Return a tensor's name in a sidecar: tower features by number, for a sample's own or rejected images."""
    return f"{'rejected' if rejected else 'own'}.{leaf}"


def read_features(tower: Sidecars, index: int) -> CachedTensors:
    """Return the features of a sample, read from the first sample of its shard with the same images.

    Raises:
        SidecarError: the sample that it names is not the first with its images.
    """
    known = tower.read(index)
    number, place = tower.samples.locate(index)
    first = _first(known)
    if 0 <= first < place:
        known = tower.read(index - place + first)
    if not 0 <= first <= place or _first(known) != first:
        raise SidecarError(
            f"{tower.path(number)} is damaged at sample {place}. Delete it, and it is made again."
        )
    return known


def _first(known: CachedTensors) -> int:
    return int(known[FIRST]) if FIRST in known and known[FIRST].shape == (1,) else -1


def assemble_features(
    batch: Batch, samples: Sequence[Sample], read: Callable[[int], CachedTensors]
) -> list[Tensor] | None:
    """Join the tower features of the images of the batch's trees; None where there are no images.

    Args:
        samples: samples of the batch.
        read: returns the features of the sample at a place of the batch.

    Raises:
        SidecarError: a sample with images has no features.
    """
    if not batch.tokens.images:
        return None
    parts = []
    for place, rejected in batch.layout.views:
        known = read(place)
        leaves = sum(name != FIRST for name in known) // 2
        side = [known[feature_name(leaf, rejected)] for leaf in range(leaves)]
        if samples[place].images and not len(side[0]):
            raise SidecarError(
                f"sample {batch.keys[place]} has images, but none were seen when the features of the vision tower "
                "were computed: it could not be read then. Delete the directories tower-* beside the shards, or in "
                "data.cache_dir: they are made again."
            )
        parts.append(side)
    return [torch.cat(leaf) for leaf in zip(*parts, strict=True)]
