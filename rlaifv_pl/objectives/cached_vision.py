"""Cached vision features: a frozen vision tower runs once on each sample, before training."""

import shutil
from collections import Counter

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
from rlaifv_pl.data.shards import ShardSet
from rlaifv_pl.data.sidecar import CachedTensors, Sidecars
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
from rlaifv_pl.models.tokenization import Processor
from rlaifv_pl.models.vision_cache import VisionFeatureLayout, vision_output
from rlaifv_pl.models.vlm import VLM
from rlaifv_pl.objectives.checks import SLICED

SIZE_SAMPLES = 8
"""Number of samples from which the size of all is estimated."""
PROBES = ((320, 240), (200, 300))
"""Width and height of two images on which the tower is tried."""


def image_identity(processor: Processor, spec: PolicySpec, trainer: Trainer) -> dict[str, str]:
    """Return what decides features of images beside weights: preprocessing, and precision."""
    images = hash_json([processor.image_processor.to_json_string(), OPENING])
    compute = getattr(trainer.strategy, "compute", None) or trainer.precision
    return {"images": images, "precision": f"{spec.dtype}, {compute}"}


class CachedVisionFeatures:
    """Features of images from the policy's frozen vision tower, stored beside the shards.

    Args:
        policy: model in training; its tower never changes.
        spec: source of the policy.
        processor: prepares the images.

    Raises:
        PolicyError: the tower trains.
    """

    def __init__(self, policy: VLM, spec: PolicySpec, processor: Processor) -> None:
        self.policy, self.spec, self.processor = policy, spec, processor
        tower = vision_tower(policy.model)
        if any(parameter.requires_grad for parameter in tower.parameters()):
            raise PolicyError(
                "data.cache_vision keeps what a frozen vision tower computes, but policy.freeze_vision is false and "
                "the tower trains. Set data.cache_vision: false, or policy.freeze_vision: true."
            )
        self._weights = weights_hash(tower)

    def sidecars(self, samples: ShardSet, trainer: Trainer, num_workers: int) -> Sidecars:
        """Return the features of the samples, computed now where they are missing.

        Args:
            samples: one or more directories of shards.
            trainer: trainer with the policy on its device.
            num_workers: processes that read samples.

        Raises:
            SidecarError: a file beside a shard belongs to another shard.
            PolicyError: the family's tower cannot be cached, or the features do not fit on the disk.
        """
        if isinstance(trainer.strategy, SLICED):
            raise PolicyError(
                "data.cache_vision needs the whole vision tower on each device, and trainer.strategy cuts it into "
                "slices. Set data.cache_vision: false, or trainer.strategy: ddp."
            )
        with frozen(self.policy):
            extractor = _FeatureExtractor(self.policy, Chat(self.processor), samples, trainer)
            self.policy.tower_layout = extractor.layout
            identity = {"weights": self._weights, "leaves": extractor.layout.names}
            sidecars = Sidecars(
                samples, "tower", identity | image_identity(self.processor, self.spec, trainer)
            )
            read = SampleImageInputs(samples, extractor.chat)
            if missing := sidecars.missing():
                _check_disk_space(sidecars, missing, extractor.mean_bytes(read, missing))
            task = PrecomputeTask("vision tower", read, extractor.keep)
            precompute_missing(sidecars, task, trainer, num_workers)
        return sidecars


class _FeatureExtractor:
    """Runs the vision tower on single samples."""

    def __init__(self, policy: VLM, chat: Chat, samples: ShardSet, trainer: Trainer) -> None:
        self.policy, self.chat, self.samples, self.trainer = policy, chat, samples, trainer
        self.layout = policy.tower_layout or self._find_layout()
        self._shard = -1
        self._first_with: dict[bytes, int] = {}  # Place of the shard's first sample with the same images.

    def _find_layout(self) -> VisionFeatureLayout:
        """Find the layout of the tower's output on two images: each alone, and both in a batch.

        Raises:
            PolicyError: features of the batch are not those of its images.
        """
        rng = np.random.default_rng(0)
        first, second = (
            Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
            for width, height in PROBES
        )
        alone = [self._to_device(image_inputs(self.chat, [[image]])) for image in (first, second)]
        model, strategy = self.policy.model, self.trainer.strategy
        with strategy.precision_plugin.forward_context():
            layout = VisionFeatureLayout(model, alone[0])
            kept = [layout.take(vision_output(model, images)) for images in alone]
            together = self._to_device(image_inputs(self.chat, [[first], [second], [first, second]]))
            order = [0, 1, 0, 1]
            joined = [torch.cat([leaf[n] for n in order]) for leaf in zip(*kept, strict=True)]
            layout.check(model, together, joined)
        return layout

    def keep(self, images: SampleImages) -> CachedTensors:
        """Return what is stored of a sample; samples come shard by shard, in their order."""
        shard, place = self.samples.locate(images.number)
        if shard != self._shard:
            self._shard, self._first_with = shard, {}
        first = self._first_with.setdefault(images.digest, place)
        stored = self._features_by_name(images if first == place else images._replace(own={}, rejected={}))
        return stored | {FIRST: torch.tensor([first])}

    def mean_bytes(self, read: SampleImageInputs, missing: list[int]) -> int:
        """Mean number of bytes that are stored of a sample of the missing shards, estimated from some of them."""
        numbers = [number for shard in missing for number in self.samples.numbers(shard)]
        picked = np.linspace(0, len(numbers) - 1, min(SIZE_SAMPLES, len(numbers))).astype(int)
        sizes = [
            value.numel() * value.element_size()
            for place in picked
            for value in self._features_by_name(read[numbers[place]]).values()
        ]
        return sum(sizes) // len(picked)

    def _features_by_name(self, images: SampleImages) -> dict[str, Tensor]:
        return {
            feature_name(leaf, rejected): value
            for rejected, pixels in ((False, images.own), (True, images.rejected))
            for leaf, value in enumerate(self._features(pixels))
        }

    def _features(self, pixels: Pixels) -> list[Tensor]:
        if not pixels:
            return self.layout.empty
        inputs = self._to_device(pixels)
        with self.trainer.strategy.precision_plugin.forward_context():
            output = vision_output(self.policy.model, inputs)
        return [leaf.cpu() for leaf in self.layout.take(output)]

    def _to_device(self, pixels: Pixels) -> Pixels:
        """Convert and move pixels as training does."""
        strategy = self.trainer.strategy
        return strategy.batch_to_device(strategy.precision_plugin.convert_input(pixels))


def _check_disk_space(sidecars: Sidecars, missing: list[int], size: int) -> None:
    """Print how much is about to be written, at a mean size in bytes for each sample.

    Raises:
        PolicyError: a disk has less space.
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
        summary = (
            f"{counts[disk]} samples of about {decimal(size)}, {decimal(needed)} in all, less if images recur; "
            f"{decimal(free)} are free on the disk of {directory}"
        )
        _print(f"features of the vision tower: {summary}")
        if needed > free:
            raise PolicyError(
                f"data.cache_vision: the features of the vision tower do not fit: {summary}. Make room, name a place "
                "on a larger disk (--data.cache_dir DIR), or set data.cache_vision: false."
            )


@rank_zero_only
def _print(line: str) -> None:
    stderr.print(line, highlight=False, soft_wrap=True)
