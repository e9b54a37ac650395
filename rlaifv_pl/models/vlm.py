"""Batches, and one forward pass for every model family: images encoded once, log-ps at targets only."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from rlaifv_pl.models.attention import choose_backend, over_forest
from rlaifv_pl.models.logps import group_sums, target_logps
from rlaifv_pl.models.policy import VisionLanguageModel, frozen_parts, unwrap_model
from rlaifv_pl.models.prefix_tree import Branch, Forest, layout_forest
from rlaifv_pl.models.vision_cache import ImageFeatures, VisionFeatureLayout, consumed


class Precomputed:
    """What was computed of a batch before training, so that no model computes it now.

    Not a dataclass: a strategy that casts the tensors of a batch leaves these in their own types.

    Args:
        reference_logps: (M,) log-ps of the targets under the reference, in nats.
        vision_features: output of a frozen vision tower on the batch's images, as `VisionFeatureLayout` keeps it.
    """

    def __init__(
        self, reference_logps: Tensor | None = None, vision_features: list[Tensor] | None = None
    ) -> None:
        self.reference_logps = reference_logps
        self.vision_features = vision_features

    def to(self, *args: Any, **kwargs: Any) -> "Precomputed":
        """Return a copy on another device."""
        return self._map(lambda value: value.to(*args, **kwargs))

    def pin_memory(self) -> "Precomputed":
        """Return a copy in page-locked memory."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Precomputed":
        logps, features = self.reference_logps, self.vision_features
        return Precomputed(
            None if logps is None else function(logps),
            None if features is None else [function(feature) for feature in features],
        )


@dataclass
class Tokens:
    """Token rows of a batch, the images that they show, and the M targets among their tokens."""

    rows: dict[str, Tensor]
    """`input_ids`, `attention_mask` and other per-token inputs, (R, T), padded right."""
    images: dict[str, Tensor]
    """Processor outputs of the images of each tree, once for all of its rows; empty without images."""
    logit_index: Tensor
    """(M,) flat index into (R x T) of the token whose hidden state predicts the target."""
    labels: Tensor
    """(M,) token ids of the targets."""
    sequence_id: Tensor
    """(M,) which scored sequence each target belongs to: part * B + sample."""


@dataclass
class TreeLayout:
    """How the rows of a batch form trees: rows about the same images, of one or more samples.

    Row r belongs to tree r % num_trees. A tree with fewer rows than others is filled up with a row that it has already,
    which adds no branch and has no target.
    """

    num_trees: int
    rows_per_tree: int
    branches: list[Branch] | None = None
    """What each row adds to the earlier rows of its tree; None where images stand behind what is shared."""
    views: list[tuple[int, bool]] = field(default_factory=list)
    """For each tree, the index of a sample whose images it shows, and whether they are its rejected ones."""


@dataclass
class Accounting:
    """What a batch counts for, and what was left out of it."""

    kept: list[int] = field(default_factory=list)
    """Indices of the batch's samples among those that were given to the collator."""
    dropped: list[tuple[str, str]] = field(default_factory=list)
    """(location, reason) of each sample that was left out."""
    is_stand_in: bool = False
    """Whether the batch counts for nothing: it is computed because other processes compute theirs."""
    step_counts: Tensor | None = None
    """Sum of `Batch.counts` over all batches of all processes in the optimiser step; None for a batch by itself."""


@dataclass
class Batch:
    """B samples as tokens and images, with the targets whose log-ps an objective needs."""

    keys: list[str]
    num_parts: int
    """Scored parts of a sample (DPO: chosen and rejected)."""
    tokens: Tokens
    layout: TreeLayout
    precomputed: Precomputed = field(default_factory=Precomputed)
    accounting: Accounting = field(default_factory=Accounting)

    @property
    def num_sequences(self) -> int:
        """num_parts x B."""
        return self.num_parts * len(self.keys)

    @property
    def counts(self) -> Tensor:
        """(1 + num_parts,) number of samples, and of targets of each part."""
        part = self.tokens.sequence_id // max(1, len(self.keys))
        targets = torch.bincount(part, minlength=self.num_parts)
        counts = torch.cat([targets.new_tensor([len(self.keys)]), targets])
        return counts * (not self.accounting.is_stand_in)

    def sum_by_sequence(self, values: Tensor) -> Tensor:
        """(num_parts x B,) sums of (M,) values over the targets of each scored sequence."""
        return group_sums(values, self.tokens.sequence_id, self.num_sequences)

    def as_rows(self) -> "Batch":
        """Return the batch as plain rows, none of which shares a prefix."""
        return replace(self, layout=replace(self.layout, branches=None))

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory; torch's DataLoader calls this."""
        pinned: Batch = apply_to_collection(self, (Tensor, Precomputed), lambda value: value.pin_memory())
        return pinned


class VLM(nn.Module):
    """Maps a batch to the log-ps of its targets.

    Parallel strategies wrap this module, so that the image features, the language model and the head are all reached
    through one forward.

    Args:
        model: of transformers, or a PEFT model around one.
        attention: a backend of `rlaifv_pl.models.attention`, `auto` or `rows`.

    Raises:
        PolicyError: the model does not support the backend; `auto` falls back to rows.
    """

    wake: Callable[[], None]
    """Makes a sharded model the root of its layers before they are called; sharded models only."""

    def __init__(self, model: nn.Module, attention: str = "auto") -> None:
        super().__init__()
        self.model = model
        self.attention, self.reason = choose_backend(unwrap_model(model), attention)
        """Backend that shares prefixes, or `rows`; and the reason for a fallback to rows."""
        self.tower_layout: VisionFeatureLayout | None = None
        """How to use the precomputed vision features of batches; without it the tower runs."""
        self.compute: torch.dtype | None = None
        """Type that sharded weights are gathered in, if it is not their own."""
        self.blank: dict[str, Tensor] | None = None
        """Processor outputs of an image that is encoded in a batch without any, so that all processes compute in step
        and the parts that read images get a gradient of zero; None to skip those parts."""

    def train(self, mode: bool = True) -> "VLM":
        """Set the training mode, but keep frozen parts outside of the language model in evaluation mode.

        In training mode a tower's batch normalisation would collect statistics, and its dropout would blur features.
        The language model takes the given mode, also below adapters, which train then.
        """
        super().train(mode)
        if mode:
            for part in frozen_parts(self.model):
                part.eval()
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "VLM":
        # Rotary frequencies are buffers and stay in float32, as transformers loads them: a strategy that casts the
        # policy to bfloat16 would move its positions away from those of the reference. (One on the `meta` device has
        # no values to keep.)
        floats = {name: b for name, b in self.named_buffers() if b.is_floating_point() and not b.is_meta}
        super()._apply(fn, recurse)
        for name, buffer in floats.items():
            owner, _, leaf = name.rpartition(".")
            self.get_submodule(owner)._buffers[leaf] = buffer.to(self.get_buffer(name).device)
        return self

    def forward(self, batch: Batch) -> Tensor:
        """(M,) log-ps of the batch's targets, in nats."""
        model, tokens, rows_per_tree = unwrap_model(self.model), batch.tokens, batch.layout.rows_per_tree
        # Positions of the Qwen families need each row's grid; pixels are used up by the features.
        grids: dict[str, Any] = {
            name: value.repeat(rows_per_tree, 1)
            for name, value in tokens.images.items()
            if name == "image_grid_thw"
        }
        if shares := self.shares(batch):
            inputs, logit_index = self._columns(batch, grids)
        else:
            inputs, logit_index = tokens.rows | grids, tokens.logit_index
        no_image: Tensor | float = 0.0
        if tokens.images:
            features = self._image_features(batch)
            inputs["mm_encoder_outputs"] = {
                "image": features if shares else repeat_features(features, rows_per_tree)
            }
        elif self.blank is not None:
            # At the point where other processes encode their images.
            no_image = self._blank_zero(self.blank, logit_index.device)
        hidden = model.model(**inputs, use_cache=False).last_hidden_state.flatten(0, 1)[logit_index]
        return target_logps(hidden, model.get_output_embeddings().weight, tokens.labels) + no_image

    @property
    def layout(self) -> Literal["packed", "trees", "rows"]:
        """Layout of batches: packed without padding, trees padded to the longest, or padded rows."""
        padded: dict[str, Literal["trees", "rows"]] = {"rows": "rows", "dense": "trees"}
        return padded.get(self.attention, "packed")

    def shares(self, batch: Batch) -> bool:
        """Return whether the batch is computed as a forest of shared prefixes."""
        return batch.layout.branches is not None and self.attention != "rows"

    def _blank_zero(self, blank: dict[str, Tensor], device: torch.device) -> Tensor:
        """Zero, computed from the features of the blank image."""
        features = self._features({name: value.to(device) for name, value in blank.items()})
        return torch.stack([leaf.float().sum() for leaf in consumed(features)]).sum() * 0.0

    def _features(self, images: dict[str, Tensor]) -> ImageFeatures:
        if self.compute:
            images = {n: v.to(self.compute) if v.is_floating_point() else v for n, v in images.items()}
        return unwrap_model(self.model).get_image_features(**images, return_dict=True)

    def _image_features(self, batch: Batch) -> ImageFeatures:
        """The model's own features of the images of the trees."""
        images, kept = batch.tokens.images, batch.precomputed.vision_features
        if kept is None or self.tower_layout is None:
            return self._features(images)
        return self.tower_layout.features(self.model, images, kept, several=batch.layout.num_trees > 1)

    def _columns(self, batch: Batch, grids: dict[str, Tensor]) -> tuple[dict[str, Any], Tensor]:
        """Inputs of the language model in which each shared prefix stands once, and where they predict targets."""
        model, rows, layout = unwrap_model(self.model), batch.tokens.rows, batch.layout
        ids = rows["input_ids"]
        branches = layout.branches or []
        make = partial(layout_forest, branches, layout.num_trees, ids.shape[1], device=ids.device)
        forest, attention = over_forest(self.attention, model, rows, make)
        inputs = {name: forest.take(value) for name, value in rows.items()}
        inputs["position_ids"] = positions(model, rows | grids, forest)
        return inputs | attention, forest.place[batch.tokens.logit_index]


def positions(model: VisionLanguageModel, inputs: dict[str, Tensor], forest: Forest) -> Tensor:
    """Position ids of the columns: those of their tokens in the plain rows."""
    if "image_grid_thw" not in inputs:
        return forest.offset
    plain, _ = model.model.get_rope_index(
        **{
            name: inputs[name]
            for name in ("input_ids", "image_grid_thw", "attention_mask", "mm_token_type_ids")
        }
    )
    return forest.take(plain)


def repeat_features(features, copies: int):
    """Image features of the trees for the rows of `copies` blocks of them; gradients add up.

    Args:
        features: the model's own output; `pooler_output`, and each layer of `deepstack_features`
            (Qwen3-VL), is a tensor or a sequence over the images.
    """
    if copies == 1:
        return features
    repeated = copy.copy(features)
    repeated.pooler_output = _repeat(features.pooler_output, copies)
    if getattr(features, "deepstack_features", None) is not None:
        repeated.deepstack_features = [_repeat(layer, copies) for layer in features.deepstack_features]
    return repeated


def _repeat(value, copies: int):
    return torch.cat([value] * copies) if isinstance(value, Tensor) else list(value) * copies
