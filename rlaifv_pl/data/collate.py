"""Samples to a batch: render, tokenise, prepare images once a sample, find the targets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from rlaifv_pl.data.faults import BadSample, Reason
from rlaifv_pl.data.images import open_image
from rlaifv_pl.data.schema import check_sample
from rlaifv_pl.models.chat import Chat, ChatError, Dialogue, Piece, Row
from rlaifv_pl.models.prefix_tree import Branch, grow
from rlaifv_pl.models.vlm import Batch
from rlaifv_pl.records import Sample

OnBadSample = Literal["raise", "skip"]


@dataclass(frozen=True, slots=True)
class _Read:
    """A sample with its dialogues cut into pieces, and the decoded images that each is about."""

    key: str
    dialogues: list[list[Piece]]
    images: list[list[Image.Image]]

    @property
    def shares_images(self) -> bool:
        """Whether all dialogues are about the same images."""
        return all(images is self.images[0] for images in self.images)


class Collator:
    """Makes a `Batch` of samples for an objective.

    Args:
        chat: of the model.
        dialogues: the objective's reading of a sample: equally many dialogues for each sample, with
            scored parts numbered below `parts`. It raises BadSample where a sample lacks something.
        parts: number of scored parts of a sample.
        max_length: tokens of a row, image tokens included; longer samples are bad samples, since
            cutting them would cut images or answers.
        on_bad_sample: stop at a bad sample, or leave it out and report it in `Batch.dropped`.
    """

    def __init__(
        self,
        chat: Chat,
        dialogues: Callable[[Sample], Sequence[Dialogue]],
        parts: int,
        max_length: int | None = None,
        on_bad_sample: OnBadSample = "raise",
    ) -> None:
        self.chat, self.dialogues, self.parts = chat, dialogues, parts
        self.max_length, self.on_bad_sample = max_length, on_bad_sample

    def __call__(self, samples: Sequence[Sample | BadSample]) -> Batch:
        """A batch of the good ones among `samples`, which may be fewer, or none.

        Raises:
            BadSample: with `on_bad_sample="raise"`, the first that cannot be trained on.
        """
        dropped: list[tuple[str, str]] = []
        reads = self._sift(samples, self._read, dropped)
        while reads:
            rows, images, copies = self._rows(reads)
            own = [(read, rows[index :: len(reads)]) for index, read in enumerate(reads)]
            fitting = self._sift(own, self._fit, dropped)
            if len(fitting) == len(reads):
                return self._batch([read.key for read in reads], rows, images, copies, dropped)
            reads = fitting
        nothing = torch.zeros(0, dtype=torch.long)
        return Batch([], {}, {}, nothing, nothing, nothing, 1, self.parts, dropped=dropped)

    def _sift(self, items: Sequence, convert: Callable, dropped: list[tuple[str, str]]) -> list:
        kept = []
        for item in items:
            try:
                kept.append(convert(item))
            except BadSample as error:
                if self.on_bad_sample == "raise":
                    raise
                dropped.append((error.where, str(error.reason)))
        return kept

    def _read(self, sample: Sample | BadSample) -> _Read:
        if isinstance(sample, BadSample):
            raise sample
        where = f"sample {sample.key}"
        check_sample(sample, where)
        dialogues = self.dialogues(sample)
        try:
            pieces = [self.chat.pieces(dialogue) for dialogue in dialogues]
        except ChatError as error:
            raise BadSample(Reason.NOT_RENDERED, where, str(error).rstrip(".")) from error
        own = [open_image(data, where) for data in sample.images]
        other = own
        if sample.rejected_images and any(dialogue.rejected_images for dialogue in dialogues):
            other = [open_image(data, f"{where}, rejected side") for data in sample.rejected_images]
        return _Read(
            sample.key, pieces, [other if dialogue.rejected_images else own for dialogue in dialogues]
        )

    def _rows(self, reads: list[_Read]) -> tuple[list[Row], dict[str, Tensor], int]:
        """Rows in blocks of the samples, the images' tensors, and how many blocks share them."""
        first, *others = blocks = list(zip(*(read.dialogues for read in reads), strict=True))
        images = list(zip(*(read.images for read in reads), strict=True))
        if not all(read.shares_images for read in reads):
            opened, tensors = self._open(sum(blocks, ()), sum(images, ()))
            return self._extend(opened, sum(blocks, ())), tensors, 1
        opened, tensors = self._open(first, images[0])
        rows = self._extend(opened, first)
        for block in others:
            same = all(one[0] == other[0] for one, other in zip(block, first, strict=True))
            rows += self._extend(opened if same else self._open(block, images[0])[0], block)
        return rows, tensors, len(blocks)

    def _open(
        self, dialogues: Sequence[list[Piece]], images: Sequence[list[Image.Image]]
    ) -> tuple[list[Row], dict[str, Tensor]]:
        return self.chat.open([pieces[0].text for pieces in dialogues], images)

    def _extend(self, opened: list[Row], dialogues: Sequence[list[Piece]]) -> list[Row]:
        return [self.chat.extend(row, pieces) for row, pieces in zip(opened, dialogues, strict=True)]

    def _fit(self, item: tuple[_Read, list[Row]]) -> _Read:
        read, own = item
        longest = max(len(row.ids) for row in own)
        if self.max_length is not None and longest > self.max_length:
            detail = f"expected at most {self.max_length} tokens with its image tokens, got {longest}"
            raise BadSample(Reason.TOO_LONG, f"sample {read.key}", detail)
        if not any(part is not None for row in own for part in row.parts):
            raise BadSample(
                Reason.NO_TARGET, f"sample {read.key}", "no token of its answers is left to learn"
            )
        return read

    def _batch(
        self,
        keys: list[str],
        rows: list[Row],
        images: dict[str, Tensor],
        copies: int,
        dropped: list[tuple[str, str]],
    ) -> Batch:
        inputs = pad_rows(rows, self.chat.tokenizer.pad_token_id or 0)
        width = inputs["input_ids"].shape[1]
        # The hidden state of token t predicts token t + 1.
        found = [
            (index * width + at - 1, row.ids[at], part * len(keys) + index % len(keys))
            for index, row in enumerate(rows)
            for at, part in enumerate(row.parts)
            if part is not None
        ]
        source, target, group = torch.tensor(found, dtype=torch.long).T.contiguous()
        branches = self._branches(rows, len(keys)) if copies > 1 else None
        return Batch(keys, images, inputs, source, target, group, copies, self.parts, branches, dropped)

    def _branches(self, rows: list[Row], samples: int) -> list[Branch] | None:
        """None if images would have to stand in a tree more than once."""
        branches = grow([row.ids for row in rows], samples)
        images = set(self.chat.processor.image_token_ids)
        behind = (
            row.ids[branch.start :] for row, branch in zip(rows[samples:], branches[samples:], strict=True)
        )
        return None if any(not images.isdisjoint(ids) for ids in behind) else branches


def pad_rows(rows: Sequence[Row], pad: int) -> dict[str, Tensor]:
    """`input_ids`, `attention_mask` and the rows' extras, each (rows, T), padded right."""
    width = max(len(row.ids) for row in rows)
    inputs = {
        "input_ids": _padded([row.ids for row in rows], pad, width),
        "attention_mask": _padded([[1] * len(row.ids) for row in rows], 0, width),
    }
    return inputs | {name: _padded([row.extras[name] for row in rows], 0, width) for name in rows[0].extras}


def _padded(rows: list[list[int]], fill: int, width: int) -> Tensor:
    return torch.tensor([row + [fill] * (width - len(row)) for row in rows])
