"""The cached tower: a frozen vision tower runs once on each sample before training, and no more in it."""

import shutil
from collections import Counter
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image
from rich.filesize import decimal
from torch import Tensor

from rlaifv_pl.console import stderr
from rlaifv_pl.data.images import OPENING
from rlaifv_pl.data.manifest import hash_json
from rlaifv_pl.data.precompute import PrecomputeTask, precompute_missing
from rlaifv_pl.data.reference_logps import CachedTensors
from rlaifv_pl.data.shards import ShardSet
from rlaifv_pl.data.sidecar import Sidecars
from rlaifv_pl.data.vision_features import (
    FIRST,
    Pixels,
    SampleImageInputs,
    SampleImages,
    feature_name,
    image_inputs,
)
from rlaifv_pl.models.chat import Chat
from rlaifv_pl.models.fingerprint import weights_hash
from rlaifv_pl.models.policy import PolicyError, PolicySpec, vision_tower
from rlaifv_pl.models.reference import frozen
from rlaifv_pl.models.vision_cache import VisionFeatureLayout, vision_output
from rlaifv_pl.models.vlm import VLM
from rlaifv_pl.objectives.checks import SLICED

WEIGHED = 8
"""Samples whose size stands for that of all."""
PROBES = ((320, 240), (200, 300))
"""Width and height of the images that show how the tower treats images of two sizes."""


def seen_as(processor: Any, spec: PolicySpec, trainer: Trainer) -> dict[str, str]:
    """What decides, beside weights, what a model makes of images: how they are prepared, and the precision."""
    images = hash_json([processor.image_processor.to_json_string(), OPENING])
    compute = getattr(trainer.strategy, "compute", None) or trainer.precision
    return {"images": images, "precision": f"{spec.dtype}, {compute}"}


class CachedVisionFeatures:
    """What the policy's vision tower makes of images, beside the shards.

    Args:
        policy: as it was loaded; its tower never changes.
        spec: from which it was loaded.
        processor: that prepares images.

    Raises:
        PolicyError: the tower trains.
    """

    def __init__(self, policy: VLM, spec: PolicySpec, processor: Any) -> None:
        self.policy, self.spec, self.processor = policy, spec, processor
        tower = vision_tower(policy.model)
        if any(parameter.requires_grad for parameter in tower.parameters()):
            raise PolicyError(
                "data.cache_vision keeps what a frozen vision tower computes, but policy.freeze_vision is false and "
                "the tower trains. Set data.cache_vision: false, or policy.freeze_vision: true."
            )
        self._weights = weights_hash(tower)

    def sidecars(self, samples: ShardSet, trainer: Trainer, num_workers: int) -> Sidecars:
        """What the tower makes of the samples, computed now where it is missing.

        Args:
            samples: of one or more directories.
            trainer: with the policy on its device.
            num_workers: processes that read.

        Raises:
            SidecarError: a file beside a shard is of another shard.
            PolicyError: the family's tower cannot be cached, or what is missing does not fit on the disk.
        """
        if isinstance(trainer.strategy, SLICED):
            raise PolicyError(
                "data.cache_vision needs the whole vision tower on each device, and trainer.strategy cuts it into "
                "slices. Set data.cache_vision: false, or trainer.strategy: ddp."
            )
        work = _Work(self.policy, Chat(self.processor), samples, trainer)
        with frozen(self.policy):
            if self.policy.tower_layout is None:
                self.policy.tower_layout = work.layout_forest()
            leaves = self.policy.tower_layout.names
            identity = {"weights": self._weights, "leaves": leaves}
            sidecars = Sidecars(samples, "tower", identity | seen_as(self.processor, self.spec, trainer))
            read = SampleImageInputs(samples, work.chat)
            if missing := sidecars.missing():
                _check_room(sidecars, missing, work.weigh(read, missing))
            precompute_missing(
                sidecars, PrecomputeTask("vision tower", read, work.keep), trainer, num_workers
            )
        return sidecars


class _Work:
    """The tower at work on single samples."""

    def __init__(self, policy: VLM, chat: Chat, samples: ShardSet, trainer: Trainer) -> None:
        self.policy, self.chat, self.samples, self.trainer = policy, chat, samples, trainer
        self._shard, self._places = -1, {}

    def layout_forest(self) -> VisionFeatureLayout:
        """The layout of the tower's output, tried on two images: each alone, and both in a batch.

        Raises:
            PolicyError: together they are not what they are alone.
        """
        rng = np.random.default_rng(0)
        first, second = (
            Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
            for width, height in PROBES
        )
        alone = [self._placed(image_inputs(self.chat, [[image]])) for image in (first, second)]
        model, strategy = self.policy.model, self.trainer.strategy
        with strategy.precision_plugin.forward_context():
            layout = VisionFeatureLayout(model, alone[0])
            kept = [layout.take(vision_output(model, images)) for images in alone]
            together = self._placed(image_inputs(self.chat, [[first], [second], [first, second]]))
            order = [0, 1, 0, 1]
            joined = [torch.cat([leaf[n] for n in order]) for leaf in zip(*kept, strict=True)]
            layout.check(model, together, joined)
        return layout

    def keep(self, shown: SampleImages) -> CachedTensors:
        """What is kept of a sample; samples are given shard by shard, in their order."""
        shard, place = self.samples.locate(shown.number)
        if shard != self._shard:
            self._shard, self._places = shard, {}
        first = self._places.setdefault(shown.digest, place)
        known = self._take(shown) if first == place else self._take(shown._replace(own={}, rejected={}))
        return known | {FIRST: torch.tensor([first])}

    def weigh(self, read: SampleImageInputs, missing: list[int]) -> int:
        """Mean number of bytes that are kept of a sample of the missing shards, from some of them."""
        numbers = [number for shard in missing for number in self.samples.numbers(shard)]
        spread = np.linspace(0, len(numbers) - 1, min(WEIGHED, len(numbers))).astype(int)
        sizes = [
            value.numel() * value.element_size()
            for place in spread
            for value in self._take(read[numbers[place]]).values()
        ]
        return sum(sizes) // len(spread)

    def _take(self, shown: SampleImages) -> dict[str, Tensor]:
        return {
            feature_name(leaf, rejected): value
            for rejected, images in ((False, shown.own), (True, shown.rejected))
            for leaf, value in enumerate(self._features(images))
        }

    def _features(self, images: Pixels) -> list[Tensor]:
        layout, strategy = self.policy.tower_layout, self.trainer.strategy
        if not images:
            return layout.empty
        placed = self._placed(images)
        with strategy.precision_plugin.forward_context():
            output = vision_output(self.policy.model, placed)
        return [leaf.cpu() for leaf in layout.take(output)]

    def _placed(self, images: Pixels) -> Pixels:
        """As training will have them."""
        strategy = self.trainer.strategy
        return strategy.batch_to_device(strategy.precision_plugin.convert_input(images))


def _check_room(sidecars: Sidecars, missing: list[int], size: int) -> None:
    """Say what is about to be written, and where.

    Args:
        size: mean bytes of a sample.

    Raises:
        PolicyError: a disk has less room.
    """
    directories, counts = {}, Counter()
    for number in missing:
        place = sidecars.samples.cache_of(number)
        directory = next(path for path in (place, *place.absolute().parents) if path.exists())
        disk = directory.stat().st_dev
        directories.setdefault(disk, directory)
        counts[disk] += len(sidecars.samples.shards[number])
    for disk, directory in directories.items():
        free, needed = shutil.disk_usage(directory).free, counts[disk] * size
        told = (
            f"{counts[disk]} samples of about {decimal(size)}, {decimal(needed)} in all, less if images recur; "
            f"{decimal(free)} are free on the disk of {directory}"
        )
        _say(f"features of the vision tower: {told}")
        if needed > free:
            raise PolicyError(
                f"data.cache_vision: the features of the vision tower do not fit: {told}. Make room, name a place "
                "on a larger disk (--data.cache_dir DIR), or set data.cache_vision: false."
            )


@rank_zero_only
def _say(line: str) -> None:
    stderr.print(line, highlight=False, soft_wrap=True)
