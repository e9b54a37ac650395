"""One forward pass for every family: images encoded once, log-ps only where targets are."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rlaifv_pl.models.attention import choose_backend, over_forest
from rlaifv_pl.models.logps import target_logps
from rlaifv_pl.models.policy import VisionLanguageModel, frozen_parts, unwrap_model, vision_tower
from rlaifv_pl.models.prefix_tree import Branch, Forest, layout_forest
from rlaifv_pl.models.vision_cache import VisionFeatureLayout, patched_forward


class KeepDtype:
    """A tensor of a batch that keeps its type when a strategy casts what the model reads.

    Args:
        values: of any shape and type.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def to(self, *arguments: Any, **options: Any) -> "KeepDtype":
        """On another device."""
        return KeepDtype(self.values.to(*arguments, **options))


@dataclass
class Batch:
    """Tokenised rows of B samples with their images, and the targets among their tokens.

    Rows about the same images are a tree; samples of one prompt share theirs. Rows come in `copies`
    blocks of `trees`: row r belongs to tree r % trees, whose images stand once in `images` for all of
    its rows. A tree with fewer rows than others is filled up with a row that it has already, which adds
    no branch and has no target. Group g of targets is part g // B of sample g % B (DPO: chosen, then
    rejected).
    """

    keys: list[str]
    images: dict[str, Tensor]
    """Processor outputs of the images of the trees; empty when the batch has none."""
    rows: dict[str, Tensor]
    """`input_ids`, `attention_mask` and other per-token inputs, (copies x trees, T), padded right."""
    source: Tensor
    """(M,) flat index into (copies x trees x T) of the token whose hidden state predicts the target."""
    target: Tensor
    """(M,) token ids."""
    group: Tensor
    """(M,) group of each target."""
    trees: int
    copies: int
    parts: int
    branches: list[Branch] | None = None
    """What each row adds to the earlier rows of its tree; None where images stand behind what is shared."""
    kept: list[int] = field(default_factory=list)
    """Of the samples that were given, the numbers of those that are in."""
    reference: KeepDtype | None = None
    """(M,) log-ps of the targets under the reference, in nats, where they are known beforehand."""
    views: list[tuple[int, bool]] = field(default_factory=list)
    """Of each tree, the place of a sample whose images it has, and whether they are its rejected ones."""
    tower: list[Tensor] | None = None
    """Output of a frozen vision tower on `images`, as `VisionFeatureLayout` keeps it, where it was precomputed."""
    step_counts: Tensor | None = None
    """`counts` of all batches of all processes that make up the optimiser step; None for a batch by itself."""
    is_stand_in: bool = False
    """Whether it counts for nothing, and is computed since other processes compute theirs."""
    dropped: list[tuple[str, str]] = field(default_factory=list)
    """(where it lies, reason) of each sample that was left out."""

    @property
    def num_groups(self) -> int:
        """parts x B."""
        return self.parts * len(self.keys)

    @property
    def counts(self) -> Tensor:
        """(1 + parts,) number of samples, and of the targets of each part."""
        targets = torch.bincount(self.group // max(1, len(self.keys)), minlength=self.parts)
        counts = torch.cat([targets.new_tensor([len(self.keys)]), targets])
        return counts * (not self.is_stand_in)


class VLM(nn.Module):
    """A model as the objectives see it: a batch in, log-ps of its targets out.

    This is the module that parallel strategies wrap, so that the image features, the language
    model and the head are all reached through one forward.

    Args:
        model: of transformers, or a PEFT model around one.
        attention: a backend of `rlaifv_pl.models.attention`, `auto` or `rows`.

    Raises:
        PolicyError: the model cannot do what is asked for; `auto` makes do with rows.
    """

    wake: Callable[[], None]
    """Of a model in slices alone: tells it that it is the root of its layers."""

    def __init__(self, model: nn.Module, attention: str = "auto") -> None:
        super().__init__()
        self.model = model
        self.attention, self.reason = choose_backend(unwrap_model(model), attention)
        """The backend that shares prefixes, or `rows`; and why it is rows if another was asked for."""
        self.tower_layout: VisionFeatureLayout | None = None
        """How to use what batches bring along of a frozen tower; without it the tower runs."""
        self.compute: torch.dtype | None = None
        """The type that slices of weights are gathered in, if it is another than theirs."""
        self.blank: dict[str, Tensor] | None = None
        """Processor outputs of an image to look at in a batch without any, so that all processes compute in step
        and whatever reads images gets a gradient, of zero; without it a batch without images passes them by."""

    def train(self, mode: bool = True) -> "VLM":
        """As of any module, but parts outside of the language model that are frozen stay in evaluation mode.

        A tower's batch normalisation would go on collecting statistics, and its dropout would blur what it sees. The
        language model keeps the mode that is asked for, also below adapters: it is what is trained then.
        """
        super().train(mode)
        if mode:
            for part in frozen_parts(self.model):
                part.eval()
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "VLM":
        # Rotary frequencies are buffers and stay in float32, as transformers loads them: a strategy that
        # casts the policy to bfloat16 would turn its positions, and no longer those of the reference.
        # (One on the `meta` device has no values to keep.)
        wide = {name: b for name, b in self.named_buffers() if b.is_floating_point() and not b.is_meta}
        super()._apply(fn, recurse)
        for name, buffer in wide.items():
            owner, _, leaf = name.rpartition(".")
            module = self.get_submodule(owner)
            module._buffers[leaf] = buffer.to(module._buffers[leaf].device)
        return self

    def forward(self, batch: Batch) -> Tensor:
        """(M,) log-ps of the batch's targets, in nats."""
        model = unwrap_model(self.model)
        # Positions of the Qwen families need each row's grid; pixels are used up by the features.
        grids: dict[str, Any] = {
            name: value.repeat(batch.copies, 1)
            for name, value in batch.images.items()
            if name == "image_grid_thw"
        }
        shares = self.shares(batch)
        inputs, source = self._columns(batch, grids) if shares else (batch.rows | grids, batch.source)
        nothing: Tensor | float = 0.0
        if batch.images:
            features = self._image_features(batch)
            inputs["mm_encoder_outputs"] = {
                "image": features if shares else repeat_features(features, batch.copies)
            }
        elif self.blank is not None:
            # Now, where others look at their images.
            nothing = self._nothing_seen(source.device)
        hidden = model.model(**inputs, use_cache=False).last_hidden_state
        wanted = hidden.flatten(0, 1)[source]
        return target_logps(wanted, model.get_output_embeddings().weight, batch.target) + nothing

    @property
    def layout(self) -> Literal["packed", "trees", "rows"]:
        """How batches are laid out: without padding, as trees padded to the longest, or as padded rows."""
        padded: dict[str, Literal["trees", "rows"]] = {"rows": "rows", "dense": "trees"}
        return padded.get(self.attention, "packed")

    def shares(self, batch: Batch) -> bool:
        """Whether the batch is read as a forest."""
        return batch.branches is not None and self.attention != "rows"

    def _nothing_seen(self, device: torch.device) -> Tensor:
        """Zero, out of the features of the blank image."""
        self.blank = {name: value.to(device) for name, value in self.blank.items()}
        features = self._features(self.blank)
        seen = [features.pooler_output, *(getattr(features, "deepstack_features", None) or ())]
        leaves = [leaf for part in seen for leaf in ([part] if isinstance(part, Tensor) else part)]
        return torch.stack([leaf.float().sum() for leaf in leaves]).sum() * 0.0

    def _features(self, images: dict[str, Tensor]) -> Any:
        if self.compute:
            images = {n: v.to(self.compute) if v.is_floating_point() else v for n, v in images.items()}
        return unwrap_model(self.model).get_image_features(**images, return_dict=True)

    def _image_features(self, batch: Batch) -> Any:
        """The model's own output, of the images of the trees."""
        if batch.tower is None or self.tower_layout is None:
            return self._features(batch.images)
        return self.tower_layout.features(self.model, batch.images, batch.tower, several=batch.trees > 1)

    def _columns(self, batch: Batch, grids: dict[str, Tensor]) -> tuple[dict[str, Any], Tensor]:
        """Inputs of the language model in which each shared prefix stands once, and where they predict targets."""
        model, rows = unwrap_model(self.model), batch.rows
        ids = rows["input_ids"]
        make = partial(layout_forest, batch.branches, batch.trees, ids.shape[1], device=ids.device)
        forest, attention = over_forest(self.attention, model, rows, make)
        inputs = {name: forest.take(value) for name, value in rows.items()}
        inputs["position_ids"] = positions(model, rows | grids, forest)
        return inputs | attention, forest.place[batch.source]


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


class VisionFeatureMemo:
    """What a frozen vision tower computed on a batch, so that the reference need not compute it again.

    Policy and reference hold the same frozen tower, or are one model with adapters on and off.
    """

    def __init__(self) -> None:
        self._outputs: list = []

    @contextmanager
    def record(self, policy: VLM) -> Iterator[None]:
        """Keep what the tower returns."""
        # Copied, since the Qwen families write into what their tower returns.
        tower = vision_tower(policy.model)
        hook = tower.register_forward_hook(lambda _m, _i, output: self._outputs.append(copy.copy(output)))
        try:
            yield
        finally:
            hook.remove()

    @contextmanager
    def replay(self, reference: VLM) -> Iterator[None]:
        """Return what was kept, call by call, instead of running the tower."""
        outputs = iter(self._outputs)
        with patched_forward(
            vision_tower(reference.model), lambda *_inputs, **_options: copy.copy(next(outputs))
        ):
            yield


@torch.no_grad()
def copy_frozen(model: VLM) -> VLM:
    """A frozen copy that shares the parameters that are frozen already, so that only the rest costs memory."""
    shared = {id(parameter): parameter for parameter in model.parameters() if not parameter.requires_grad}
    return copy.deepcopy(model, shared).requires_grad_(False).eval()
