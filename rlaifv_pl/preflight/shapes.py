"""Tensors without values: a model of any size computes on a laptop, and every byte that it would hold is counted.

What touches a weight has a shape, a type and a size, and no more. Token ids, masks and positions stay real, since a
model's code looks at their values. The real training step runs on them, autograd and checkpointing included.
"""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

BLOCK = 512
"""Bytes that a device's allocator rounds up to."""

INDEXING = (
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
    torch.ops.aten._unsafe_index.Tensor,
)


class Held:
    """Bytes that are held, and the most that were, of all shapes that were made while it counted."""

    def __init__(self) -> None:
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def count(self, tensor: Tensor) -> None:
        """Hold a tensor's storage as long as something uses it."""
        storage = tensor.untyped_storage()
        if storage._cdata in self._seen or storage._cdata in _earlier:
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        self._seen.add(storage._cdata)
        weakref.finalize(storage, self._release, storage._cdata, size).atexit = False
        self.now += size
        self.peak = max(self.peak, self.now)

    def _release(self, place: int, size: int) -> None:
        self._seen.discard(place)
        self.now -= size


_counting: list[Held] = []
_earlier: set[int] = set()
"""Storages of shapes that were made while nothing counted, weights above all: a view of one holds nothing new."""


def _note(tensor: Tensor) -> None:
    if _counting:
        _counting[-1].count(tensor)
    elif (storage := tensor.untyped_storage())._cdata not in _earlier:
        _earlier.add(storage._cdata)
        weakref.finalize(storage, _earlier.discard, storage._cdata).atexit = False


@contextmanager
def counted(held: Held) -> Iterator[None]:
    """Count what is made inside."""
    _counting.append(held)
    try:
        yield
    finally:
        _counting.pop()


class Shape(Tensor):
    """A tensor of which everything is known but its values. It says that it is on the CPU, so that it goes together
    with real ones.

    Args:
        meta: the same on the `meta` device; views share its storage.
    """

    meta: Tensor

    @staticmethod
    def __new__(cls, meta: Tensor) -> "Shape":
        made = Tensor._make_wrapper_subclass(
            cls, meta.size(), strides=meta.stride(), storage_offset=meta.storage_offset(), dtype=meta.dtype,
            device=torch.device("cpu"), requires_grad=False,
        )  # fmt: skip
        made.meta = meta
        _note(meta)
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Shape({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The operation on the `meta` device; what works in place gives back what it worked on."""
        kwargs = dict(kwargs or {})
        if func in INDEXING:
            args = (args[0], _numbered(args[1]), *args[2:])
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("meta")
        plain_args, plain_kwargs = pytree.tree_map_only(Tensor, meta_of, (args, kwargs))
        given = {id(plain): own for plain, own in _pairs(plain_args, args)}
        made = func(*plain_args, **plain_kwargs)
        return pytree.tree_map_only(Tensor, lambda value: _wrapped(value, given), made)


def _pairs(plain: Any, own: Any) -> Iterable[tuple[Any, Any]]:
    return [
        (one, other)
        for one, other in zip(pytree.tree_leaves(plain), pytree.tree_leaves(own), strict=True)
        if isinstance(other, Shape)
    ]


def _wrapped(value: Tensor, given: dict[int, Tensor]) -> Tensor:
    return given[id(value)] if id(value) in given else Shape(value)


def meta_of(tensor: Tensor) -> Tensor:
    """The same on the `meta` device; of a shape its own, whose storage it shares."""
    return tensor.meta if isinstance(tensor, Shape) else tensor.to("meta")


def _numbered(indices: list[Tensor | None]) -> list[Tensor | None]:
    """Indices with the places that real masks choose, since how many they are is a matter of values."""
    found: list[Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype == torch.bool and not isinstance(index, Shape):
            found += index.nonzero().unbind(1)
        else:
            found.append(index)
    return found


def without_values(models: Iterable[nn.Module]) -> None:
    """Replace weights on the `meta` device by shapes, in place; those that models share stay shared."""
    known: dict[int, nn.Parameter] = {}
    for module in (part for model in models for part in model.modules()):
        for name, parameter in module._parameters.items():
            if parameter is not None and not isinstance(parameter, Shape):
                made = nn.Parameter(
                    Shape(parameter.detach().to("meta")), requires_grad=parameter.requires_grad
                )
                module._parameters[name] = known.setdefault(id(parameter), made)
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:
                is_number = buffer.is_floating_point()
                module._buffers[name] = Shape(buffer) if is_number else torch.zeros_like(buffer, device="cpu")


def size_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors, each storage once."""
    storages = [(t.meta if isinstance(t, Shape) else t).untyped_storage() for t in tensors]
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())
