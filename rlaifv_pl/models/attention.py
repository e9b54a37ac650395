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
"""Boolean masks of the plain rows: (rows, 1, T, T), None for plainly causal; one for each kind of layer if there are
several."""

ForwardArguments = dict[str, Any]
"""Arguments of a decoder's forward."""

Layout = Callable[..., Forest]
"""`layout_forest` with the arguments of a batch; takes `packed`."""


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention function for transformers; over a forest if the call passes one."""
    attend = options.pop(TREE, sdpa_attention_forward)
    return attend(module, query, key, value, attention_mask, **options)


AttentionInterface.register(TREE, tree_attention)
AttentionMaskInterface.register(TREE, sdpa_mask)


def unsupported_reason(model: PreTrainedModel) -> str:
    """Return why the model cannot share prefixes; empty if it can."""
    decoder = model.get_decoder()
    config = decoder.config
    stateful = sorted(set(getattr(config, "layer_types", None) or ()) - CAUSAL_LAYERS)
    if stateful or getattr(decoder, "_is_stateful", False):
        kinds = f" ({', '.join(stateful)})" if stateful else ""
        return f"{type(model).__name__} has layers that carry a state from token to token{kinds}"
    if getattr(config, "is_encoder_decoder", False) or not decoder._can_set_attn_implementation():
        return f"{type(model).__name__} does not take its attention from transformers' AttentionInterface"
    if config._attn_implementation not in ("sdpa", TREE):
        return f"its attention is {config._attn_implementation}"
    return ""


def row_masks(model: PreTrainedModel, rows: dict[str, Tensor]) -> Masks:
    """Return the family's own masks of plain rows that are padded right; padding is not masked."""
    ids = rows["input_ids"]
    make = getattr(model, "create_masks_for_generate", create_masks_for_generate)
    # Only its shape, type and device are read.
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
    """Return whether every layer is plainly causal."""
    return not any(mask is not None for mask in (masks.values() if isinstance(masks, dict) else [masks]))


def dense(make: Layout, masks: Masks) -> tuple[Forest, ForwardArguments]:
    """One line for each tree and a boolean mask: simple, at a cost of the square of a line's width."""
    forest = make(packed=False)
    return forest, {"attention_mask": _for_layers(masks, partial(_visible, forest))}


def split(make: Layout, masks: Masks) -> tuple[Forest, ForwardArguments]:
    """One line for all trees; each branch attends over its path in a call of its own."""
    forest = make(packed=True)
    return forest, {"attention_mask": _for_layers(masks, partial(_by_offset, forest)), TREE: _Split(forest)}


def flex(make: Layout, masks: Masks) -> tuple[Forest, ForwardArguments]:
    """One line for all trees, and compiled kernels that skip masked blocks; CUDA only."""
    from torch.nn.attention.flex_attention import create_block_mask
    from transformers.integrations.flex_attention import flex_attention_forward

    forest = make(packed=True)
    width = forest.token.shape[1]

    def block_mask(mask: Tensor | None) -> Any:
        return create_block_mask(_block_rule(forest, mask), 1, None, width, width, device=forest.token.device)

    return forest, {"attention_mask": _for_layers(masks, block_mask), TREE: flex_attention_forward}


def flash(make: Layout, masks: Masks) -> tuple[Forest, ForwardArguments]:
    """One line for all trees, and one call of flash-attn in which a branch has more keys than queries."""
    if not is_causal(masks):
        raise PolicyError(
            "policy.attention: flash supports plainly causal attention only, and this model has sliding windows or "
            "bidirectional image tokens. Set policy.attention: split."
        )
    forest = make(packed=True)
    return forest, {"attention_mask": _for_layers(masks, partial(_by_offset, forest)), TREE: _Flash(forest)}


BACKENDS = {"dense": dense, "split": split, "flex": flex, "flash": flash}
"""Each lays out a forest and returns the arguments with which a decoder attends over it."""

AUTO = "split"
"""Exact and fast on any device; flex and flash are used only when they are named."""


def choose_backend(model: PreTrainedModel, attention: str) -> tuple[str, str]:
    """Resolve `attention` to a backend or `rows`, with the reason for a fallback to rows; prepare the model for it.

    Args:
        model: of transformers.
        attention: a backend, `auto` for the best or `rows`, or an attention implementation of transformers, which
            reads rows.

    Raises:
        PolicyError: a backend was named that the model or the machine cannot run.
    """
    if attention not in BACKENDS and attention != "auto":
        return "rows", ""
    reason = unsupported_reason(model) or _missing_dependency(attention)
    if not reason:
        model.get_decoder().set_attn_implementation(TREE)
        return attention, ""
    if attention != "auto":
        raise PolicyError(f"policy.attention: {attention} is not possible: {reason}. Choose auto or rows.")
    return "rows", reason


def _missing_dependency(attention: str) -> str:
    if attention == "flex" and not torch.cuda.is_available():
        return "FlexAttention has no gradient on the CPU"
    if attention == "flash" and not is_flash_attn_2_available():
        return "flash-attn or a GPU for it is missing"
    return ""


def over_forest(
    attention: str, model: PreTrainedModel, rows: dict[str, Tensor], make: Layout
) -> tuple[Forest, ForwardArguments]:
    """Lay out the forest of a batch, and return it with the arguments with which the model attends over it.

    Args:
        attention: name of a backend, or `auto` for `AUTO`.
        model: of transformers.
        rows: the plain rows.
        make: function that lays out their branches.
    """
    masks = row_masks(model, rows)
    backend = BACKENDS[AUTO if attention == "auto" else attention]
    return backend(make, masks)


def compute_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the type in which weights of `dtype` are multiplied under the present autocast."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else dtype


def rounding_dtype(model: PreTrainedModel, dtype: torch.dtype | None = None) -> torch.dtype:
    """Return the type whose rounding bounds how far two ways to compute the same may differ.

    `dtype` is that of the weights in use, if not the model's own.
    """
    dtype = compute_dtype(dtype or model.dtype, model.device)
    # TensorFloat-32 has the mantissa of float16.
    rounds = dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest"
    return torch.float16 if rounds and model.device.type == "cuda" else dtype


def _for_layers(masks: Masks, convert: Callable[[Tensor | None], Any]) -> Any:
    if isinstance(masks, dict):
        return {kind: convert(mask) for kind, mask in masks.items()}
    return convert(masks)


def _visible(forest: Forest, mask: Tensor | None) -> Tensor:
    """(lines, 1, width, width) attention mask of the columns."""
    lines, width = forest.token.shape
    line, column = (torch.arange(size, device=forest.token.device) for size in (lines, width))
    return forest.sees(line[:, None, None], column[:, None], column, mask)[:, None]


def _block_rule(forest: Forest, mask: Tensor | None) -> Callable[..., Tensor]:
    """Return the rule of that mask for single columns."""
    return lambda line, _head, query, key: forest.sees(line, query, key, mask)


def _by_offset(forest: Forest, mask: Tensor | None) -> Tensor:
    """(1, 1, width, row_width) mask of each column over its path; of size 0 for plainly causal attention.

    Never None, which transformers would replace by a mask of its own.
    """
    if mask is None:
        return torch.empty(1, 1, 0, 0, device=forest.token.device)
    return mask[forest.row[0], :, forest.offset[0]].transpose(0, 1)[None]


class _Split:
    """One call of SDPA for each branch: its columns are the queries, its path up to its end the keys."""

    def __init__(self, forest: Forest) -> None:
        self.spans, self.pieces = spans(forest)
        self.lengths = [span.length for span in self.spans]
        # Where the path is longer than the branch, the causal mask is aligned to the lower right.
        self.causal_masks = [
            _lower_right(span.length, span.stop, forest.token.device) if span.start else None
            for span in self.spans
        ]

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **options: Any
    ) -> tuple[Tensor, None]:
        # Split instead of sliced: each slice would have a gradient of full size.
        queries = query.split(self.lengths, 2)
        masks = mask.split(self.lengths, 2) if mask.numel() else None
        keys, values = (self._paths(states) for states in (key, value))
        outputs = []
        for at, span in enumerate(self.spans):
            visible = self.causal_masks[at] if masks is None else masks[at][..., : span.stop]
            outputs.append(
                sdpa_attention_forward(module, queries[at], keys[at], values[at], visible, **options)[0]
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
    """All branches in one call: flash-attn aligns causal masks to the lower right."""

    def __init__(self, forest: Forest) -> None:
        from flash_attn import flash_attn_varlen_func

        self.attend = flash_attn_varlen_func
        device, branches = forest.token.device, spans(forest)[0]
        places = forest.place.view(-1, forest.row_width)
        self.keys = torch.cat([places[span.row, : span.stop] for span in branches])
        sizes = [span.length for span in branches], [span.stop for span in branches]
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
