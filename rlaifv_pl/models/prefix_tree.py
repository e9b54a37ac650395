"""One prefix, many continuations: what the rows of a tree share gets columns once.

The rows [prefix][chosen] and [prefix][rejected] of a preference pair become [prefix][chosen][rejected].
Each row is cut where it leaves an earlier row of its tree, and only the rest, its branch, is laid out.
A column then stands for a token at an offset of a row, and what it may see is what it saw in that row:
columns on the row's own path, from the root through the branches that it left. Positions, masks and
targets are those of the plain rows, gathered. Several trees stand side by side, since no root is on the
path of another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor


class Branch(NamedTuple):
    """The part of a row that no earlier row of its tree has."""

    parent: int
    """The row that it leaves; its own row for a root."""
    start: int
    """Its first offset: so many tokens are the parent's."""
    stop: int
    """Length of the row."""


def build_branches(rows: Sequence[Sequence[int]], trees: int) -> list[Branch]:
    """The branch of each row of token ids, where row r belongs to tree r % trees.

    >>> build_branches([[1, 2, 3], [1, 2, 4, 5]], trees=1)
    [Branch(parent=0, start=0, stop=3), Branch(parent=0, start=2, stop=4)]
    """
    branches = []
    for row, ids in enumerate(rows):
        shared = {earlier: common_prefix(rows[earlier], ids) for earlier in range(row % trees, row, trees)}
        # Of equals the earliest, which is the one that owns the last shared token.
        parent = max(shared, key=shared.__getitem__, default=row)
        branches.append(Branch(parent, shared.get(parent, 0), len(ids)))
    return branches


def common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """Number of leading tokens that two rows share."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


@dataclass
class Forest:
    """Branches in columns: `lines` lines of `width` columns each.

    Args:
        branches: of the plain rows.
        row_width: of the plain rows, padding included; "flat" below is row x row_width + offset.
        order: rows in the order in which their branches are laid out; parents come first.
        token: (lines, width) flat index of the plain token in each column.
        is_real: (lines, width) false where a column only pads its line.
        place: (rows x row_width,) flat index of the column in which each plain token stands; tokens that
            rows share stand in one, and padding has none (0).
        reach: (rows, rows) how many leading tokens of a row are seen by the branch of another.
    """

    branches: list[Branch]
    row_width: int
    order: list[int]
    token: Tensor
    is_real: Tensor
    place: Tensor
    reach: Tensor

    @cached_property
    def row(self) -> Tensor:
        """(lines, width) the row of each column."""
        return self.token // self.row_width

    @cached_property
    def offset(self) -> Tensor:
        """(lines, width) where in its row each column stands."""
        return self.token % self.row_width

    def take(self, values: Tensor) -> Tensor:
        """(..., lines, width) out of values (..., rows, row_width) of the plain tokens."""
        return values.flatten(-2)[..., self.token]

    def sees(self, line: Tensor, query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
        """Whether a column sees another, for indices that broadcast.

        Args:
            line, query, key: of the columns; all three are tensors.
            mask: (rows, 1, row_width, row_width) what sees what in the plain rows; causal if not given.
        """
        row, offset, seen = self.row[line, query], self.offset[line, query], self.offset[line, key]
        on_path = self.is_real[line, key] & (seen < self.reach[row, self.row[line, key]])
        before = seen <= offset if mask is None else mask[row, 0, offset, seen]
        # Padding sees itself at least: a softmax over nothing is not a number.
        return (on_path & before) | (query == key)


def layout_forest(
    branches: list[Branch], trees: int, row_width: int, *, packed: bool, device: torch.device | str = "cpu"
) -> Forest:
    """Columns for the branches: all in one line without padding, or a line for each tree."""
    order = [row for tree in range(trees) for row in range(tree, len(branches), trees)]
    own = {
        row: torch.arange(row * row_width + branches[row].start, row * row_width + branches[row].stop)
        for row in order
    }
    per_tree = len(branches) // trees
    lines = [
        torch.cat([own[row] for row in order[at : at + per_tree]]) for at in range(0, len(order), per_tree)
    ]
    if packed:
        lines = [torch.cat(lines)]
    width = max(map(len, lines))
    # A line is filled up with its last token, which is never an image's.
    token = torch.stack([torch.cat([line, line[-1:].expand(width - len(line))]) for line in lines])
    is_real = torch.stack([torch.arange(width) < len(line) for line in lines])
    place = torch.zeros(len(branches) * row_width, dtype=torch.long)
    place[token[is_real]] = is_real.flatten().nonzero().flatten()
    reach = torch.zeros(len(branches), len(branches), dtype=torch.long)
    for row, (parent, start, stop) in enumerate(branches):
        at = row * row_width
        place[at : at + start] = place[parent * row_width : parent * row_width + start]
        reach[row] = reach[parent].clamp(max=start)
        reach[row, row] = stop
    moved = (value.to(device) for value in (token, is_real, place, reach))
    return Forest(branches, row_width, order, *moved)


class Span(NamedTuple):
    """A branch as consecutive columns, and what stands before them on its path."""

    row: int
    start: int
    stop: int
    ancestors: list[int]
    """Pieces, in order of offset; none for a root."""

    @property
    def length(self) -> int:
        """Number of its columns."""
        return self.stop - self.start


def spans(forest: Forest) -> tuple[list[Span], list[int]]:
    """The branches of a packed forest in order, empty ones left out; and the lengths of its pieces.

    A piece is a stretch of columns in which no row leaves the branch, so that each path is a list of
    whole pieces.
    """
    paths: dict[int, list[tuple[int, int]]] = {}
    found, lengths = [], []
    for row in forest.order:
        parent, start, stop = forest.branches[row]
        leaving = {other.start for other in forest.branches if other.parent == row}
        cuts = sorted({start, stop} | {at for at in leaving if start < at < stop})
        before = [piece for piece in paths.get(parent, []) if piece[1] <= start]
        own = [(len(lengths) + n, end) for n, end in enumerate(cuts[1:])]
        lengths += [end - begin for begin, end in pairwise(cuts)]
        paths[row] = before + own
        if own:
            found.append(Span(row, start, stop, [piece for piece, _ in before]))
    return found, lengths
