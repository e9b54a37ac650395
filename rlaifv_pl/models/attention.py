"""Attention over prefix trees, in any family's decoder: dense, split, flex and flash.

transformers lets a decoder run any function that is registered with its AttentionInterface, hands a 4-D
mask on to it untouched, and passes keyword arguments of the model's forward along. So a forest reaches the
layers as a mask for each kind of layer, and, where a mask alone does not do, as a callable under TREE.
Without one, the registered function is transformers' own for SDPA.
"""

from collections.abc import Callable
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import create_masks_for_generate, sdpa_mask
from transformers.utils import is_flash_attn_2_available

from rlaifv_pl.models.policy import PolicyError
from rlaifv_pl.models.prefix_tree import Forest, spans

TREE = "prefix_tree"
"""Name of the attention function, and of the argument that brings it a forest."""

CAUSAL_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}

Masks = dict[str, Tensor | None] | Tensor | None
"""What sees what in the plain rows: (rows, 1, T, T), None where that is plainly causal; one for each kind
of layer if there are several."""

Layout = Callable[..., Forest]
"""`layout_forest` of a batch; takes `packed`."""


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it; over a forest if the call brings one."""
    attend = options.pop(TREE, sdpa_attention_forward)
    return attend(module, query, key, value, attention_mask, **options)


AttentionInterface.register(TREE, tree_attention)
AttentionMaskInterface.register(TREE, sdpa_mask)


def unsupported_reason(model: PreTrainedModel) -> str:
    """Why the model cannot share prefixes; empty if it can."""
    decoder = model.get_decoder()
    config = decoder.config
    carried = sorted(set(getattr(config, "layer_types", None) or ()) - CAUSAL_LAYERS)
    if carried or getattr(decoder, "_is_stateful", False):
        named = f" ({', '.join(carried)})" if carried else ""
        return f"{type(model).__name__} has layers that carry a state from token to token{named}"
    if getattr(config, "is_encoder_decoder", False) or not decoder._can_set_attn_implementation():
        return f"{type(model).__name__} does not take its attention from transformers' AttentionInterface"
    if config._attn_implementation not in ("sdpa", TREE):
        return f"its attention is {config._attn_implementation}"
    return ""


def row_masks(model: PreTrainedModel, rows: dict[str, Tensor]) -> Masks:
    """The family's own masks of plain rows that are padded right, padding not regarded."""
    ids = rows["input_ids"]
    make = getattr(model, "create_masks_for_generate", create_masks_for_generate)
    # Only its shape, type and device are asked for.
    embeds = torch.empty((*ids.shape, 0), dtype=model.dtype, device=ids.device)
    # By position: the cache has another name from release to release of transformers.
    return make(
        model.config,
        embeds,
        None,  # attention_mask
        None,  # cache
        position_ids=None,
        token_type_ids=rows.get("token_type_ids"),
        mm_token_type_ids=rows.get("mm_token_type_ids"),
    )


def is_causal(masks: Masks) -> bool:
    """Whether every layer is plainly causal."""
    return not any(mask is not None for mask in (masks.values() if isinstance(masks, dict) else [masks]))


def dense(make: Layout, masks: Masks) -> tuple[Forest, dict[str, Any]]:
    """A line for each tree and a boolean mask: simple, and as costly as the square of a line's width."""
    forest = make(packed=False)
    return forest, {"attention_mask": _for_layers(masks, partial(_visible, forest))}


def split(make: Layout, masks: Masks) -> tuple[Forest, dict[str, Any]]:
    """One line for all trees: each branch by itself attends over its path."""
    forest = make(packed=True)
    return forest, {"attention_mask": _for_layers(masks, partial(_by_offset, forest)), TREE: _Split(forest)}


def flex(make: Layout, masks: Masks) -> tuple[Forest, dict[str, Any]]:
    """One line for all trees, and compiled kernels that leave out what nothing sees; CUDA only."""
    from torch.nn.attention.flex_attention import create_block_mask
    from transformers.integrations.flex_attention import flex_attention_forward

    forest = make(packed=True)
    width = forest.token.shape[1]

    def block_mask(mask: Tensor | None) -> Any:
        return create_block_mask(_block_rule(forest, mask), 1, None, width, width, device=forest.token.device)

    return forest, {"attention_mask": _for_layers(masks, block_mask), TREE: flex_attention_forward}


def flash(make: Layout, masks: Masks) -> tuple[Forest, dict[str, Any]]:
    """One line for all trees, and one call of flash-attn with more keys than queries for a branch."""
    if not is_causal(masks):
        raise PolicyError(
            "policy.attention: flash knows plainly causal attention only, and this model has windows or images "
            "that see themselves. Choose split."
        )
    forest = make(packed=True)
    return forest, {"attention_mask": _for_layers(masks, partial(_by_offset, forest)), TREE: _Flash(forest)}


BACKENDS = {"dense": dense, "split": split, "flex": flex, "flash": flash}
"""Each lays out a forest and says how a decoder attends over it."""

AUTO = "split"
"""Exact and fast on any device. The kernels of flex and flash have not been run on one yet: they are taken when
they are asked for."""


def choose_backend(model: PreTrainedModel, attention: str) -> tuple[str, str]:
    """What `attention` comes to, and why it is `rows` where that was not asked for; makes the model ready for it.

    Args:
        model: of transformers.
        attention: name of a backend, `auto` for the best or `rows`, or an attention of transformers, which is
            for rows.

    Raises:
        PolicyError: a backend was asked for by name, and the model or the machine cannot run it.
    """
    if attention not in BACKENDS and attention != "auto":
        return "rows", ""
    reason = unsupported_reason(model) or _lacking(attention)
    if not reason:
        model.get_decoder().set_attn_implementation(TREE)
        return attention, ""
    if attention != "auto":
        raise PolicyError(f"policy.attention: {attention} cannot be: {reason}. Choose auto or rows.")
    return "rows", reason


def _lacking(attention: str) -> str:
    if attention == "flex" and not torch.cuda.is_available():
        return "FlexAttention has no gradient on the CPU"
    if attention == "flash" and not is_flash_attn_2_available():
        return "flash-attn and a GPU for it are not there"
    return ""


def over_forest(
    attention: str, model: PreTrainedModel, rows: dict[str, Tensor], make: Layout
) -> tuple[Forest, dict[str, Any]]:
    """The forest of a batch, and the arguments with which the model attends over it.

    Args:
        attention: name of a backend, or `auto` for `AUTO`.
        model: of transformers.
        rows: the plain rows.
        make: lays out their branches.
    """
    masks = row_masks(model, rows)
    backend = BACKENDS[AUTO if attention == "auto" else attention]
    return backend(make, masks)


def compute_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The type in which weights of `dtype` are multiplied here and now."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else dtype


def rounding_dtype(model: PreTrainedModel, dtype: torch.dtype | None = None) -> torch.dtype:
    """The type that says how far two ways to compute the same may differ; `dtype` is that of the weights in use, if
    not the model's own."""
    dtype = compute_dtype(dtype or model.dtype, model.device)
    # TensorFloat-32 has the mantissa of float16.
    rounds = dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest"
    return torch.float16 if rounds and model.device.type == "cuda" else dtype


def _for_layers(masks: Masks, convert: Callable[[Tensor | None], Any]) -> Any:
    if isinstance(masks, dict):
        return {kind: convert(mask) for kind, mask in masks.items()}
    return convert(masks)


def _visible(forest: Forest, mask: Tensor | None) -> Tensor:
    """(lines, 1, width, width) what sees what."""
    lines, width = forest.token.shape
    line, column = (torch.arange(size, device=forest.token.device) for size in (lines, width))
    return forest.sees(line[:, None, None], column[:, None], column, mask)[:, None]


def _block_rule(forest: Forest, mask: Tensor | None) -> Callable[..., Tensor]:
    """The same, column by column."""
    return lambda line, _head, query, key: forest.sees(line, query, key, mask)


def _by_offset(forest: Forest, mask: Tensor | None) -> Tensor:
    """(1, 1, width, row_width) what each column sees on its path; of size 0 where that is plainly causal.

    Never None, which transformers would replace by a mask of its own.
    """
    if mask is None:
        return torch.empty(1, 1, 0, 0, device=forest.token.device)
    return mask[forest.row[0], :, forest.offset[0]].transpose(0, 1)[None]


class _Split:
    """Each branch is a call of SDPA: its columns are the queries, its path up to its end the keys."""

    def __init__(self, forest: Forest) -> None:
        self.spans, self.pieces = spans(forest)
        self.lengths = [span.length for span in self.spans]
        # Where the path is longer than the branch, causal means from its lower right corner.
        self.corners = [
            _lower_right(span.length, span.stop, forest.token.device) if span.start else None
            for span in self.spans
        ]

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **options: Any
    ) -> tuple[Tensor, None]:
        # Cut by split and not by slices, each of which would have a gradient of full size.
        queries = query.split(self.lengths, 2)
        masks = mask.split(self.lengths, 2) if mask.numel() else None
        keys, values = (self._paths(states) for states in (key, value))
        outputs = []
        for at, span in enumerate(self.spans):
            seen = self.corners[at] if masks is None else masks[at][..., : span.stop]
            outputs.append(
                sdpa_attention_forward(module, queries[at], keys[at], values[at], seen, **options)[0]
            )
        return torch.cat(outputs, 1), None

    def _paths(self, states: Tensor) -> list[Tensor]:
        branches, pieces = states.split(self.lengths, 2), states.split(self.pieces, 2)
        return [
            torch.cat([*(pieces[ancestor] for ancestor in span.ancestors), own], 2) if span.ancestors else own
            for span, own in zip(self.spans, branches, strict=True)
        ]


def _lower_right(queries: int, keys: int, device: torch.device) -> Tensor:
    return torch.ones(1, 1, queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


class _Flash:
    """All branches in one call: flash-attn aligns causal masks at the lower right corner."""

    def __init__(self, forest: Forest) -> None:
        from flash_attn import flash_attn_varlen_func

        self.attend = flash_attn_varlen_func
        device, found = forest.token.device, spans(forest)[0]
        places = forest.place.view(-1, forest.row_width)
        self.keys = torch.cat([places[span.row, : span.stop] for span in found])
        sizes = [span.length for span in found], [span.stop for span in found]
        self.longest = [max(lengths) for lengths in sizes]
        self.ends = [
            torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device) for lengths in sizes
        ]

    def __call__(
        self, _module: nn.Module, query: Tensor, key: Tensor, value: Tensor, _mask: Tensor, **options: Any
    ) -> tuple[Tensor, None]:
        dtype = compute_dtype(query.dtype, query.device)
        # (1, heads, columns, size) to (columns, heads, size)
        q, k, v = (states[0].transpose(0, 1).to(dtype) for states in (query, key, value))
        attended = self.attend(
            q, k[self.keys], v[self.keys], *self.ends, *self.longest,
            dropout_p=options.get("dropout", 0.0), softmax_scale=options.get("scaling"), causal=True,
            softcap=options.get("softcap") or 0.0,
        )  # fmt: skip
        return attended[None].to(query.dtype), None
