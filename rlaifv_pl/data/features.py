"""Features of a frozen vision tower that were computed beforehand: of which pixels, and from sidecars to a batch."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rlaifv_pl.data.faults import BadSample
from rlaifv_pl.data.images import open_image
from rlaifv_pl.data.known import Known
from rlaifv_pl.data.shards import ShardSet
from rlaifv_pl.data.sidecar import SidecarError
from rlaifv_pl.models.chat import Chat, about_images
from rlaifv_pl.models.vlm import Batch
from rlaifv_pl.records import Sample

Pixels = dict[str, Tensor]
"""Processor outputs of some images; empty of none."""


class SamplePixels(Dataset):
    """A sample's own and its rejected images as the tower takes them, each side by itself.

    A sample that cannot be read has none: whether that stops a run is for those to say who train on it.
    """

    def __init__(self, samples: ShardSet, chat: Chat) -> None:
        self.samples, self.chat = samples, chat

    def __getitem__(self, index: int) -> tuple[Pixels, Pixels]:
        try:
            sample = self.samples[index]
            sides = [
                [open_image(data, sample.key) for data in images]
                for images in (sample.images, sample.rejected_images)
            ]
        except BadSample:
            return {}, {}
        own, rejected = (pixels(self.chat, [images]) for images in sides)
        return own, rejected


def pixels(chat: Chat, images: Sequence[Sequence]) -> Pixels:
    """Of some trees, each with its images."""
    if not any(images):
        return {}
    texts = [chat.render([about_images("a", len(group))], ask=False) for group in images]
    return chat.open(texts, images)[1]


def name_of(leaf: int, rejected: bool) -> str:
    """Of what a sidecar holds: the tower's kept tensors by number, for a sample's own and its rejected images."""
    return f"{'rejected' if rejected else 'own'}.{leaf}"


def put_together(
    batch: Batch, samples: Sequence[Sample], read: Callable[[int], Known]
) -> list[Tensor] | None:
    """The tower features of the images of the batch's trees; None where there are no images.

    Args:
        samples: of the batch.
        read: what is known of the sample at a place of the batch.

    Raises:
        SidecarError: nothing is known of a sample that has images.
    """
    if not batch.images:
        return None
    parts = []
    for place, rejected in batch.views:
        known = read(place)
        side = [known[name_of(leaf, rejected)] for leaf in range(len(known) // 2)]
        if samples[place].images and not len(side[0]):
            raise SidecarError(
                f"sample {batch.keys[place]} has images, but none were seen when the features of the vision tower "
                "were computed: it could not be read then. Delete the directories tower-* beside the shards: they "
                "are made again."
            )
        parts.append(side)
    return [torch.cat(leaves) for leaves in zip(*parts, strict=True)]
