"""Samples to a batch: render, tokenise, prepare images once a sample, find the targets."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.images import open_images
from rlaifv_pl.data.schema import check_sample
from rlaifv_pl.models.chat import Chat, Dialogue
from rlaifv_pl.models.prefix_tree import Branch, build_branches
from rlaifv_pl.models.text_checks import ChatError, RenderedPromptError, SpecialTokenError
from rlaifv_pl.models.tokenization import ImagesRefused, Piece, TokenizedRow
from rlaifv_pl.models.vlm import Accounting, Batch, Tokens, TreeLayout
from rlaifv_pl.records import Sample

OnBadSample = Literal["raise", "skip"]

_REASONS: Mapping[type[ChatError], Reason] = {
    SpecialTokenError: Reason.SPECIAL_TOKEN,
    RenderedPromptError: Reason.RENDERED_PROMPT,
    ImagesRefused: Reason.UNFIT_IMAGE,
}


@dataclass(frozen=True, slots=True)
class _Read:
    """A sample with its dialogues cut into pieces, and the decoded images that each is about."""

    number: int
    key: str
    dialogues: list[list[Piece]]
    images: list[list[Image.Image]]
    origin: Hashable
    """Equal for samples with the same images and the same words up to their first answers."""
    rejected: list[bool]
    """Of each dialogue, whether it is about rejected images that are not those of the sample."""

    @property
    def shares_images(self) -> bool:
        """Whether all dialogues are about the same images."""
        return len(set(self.rejected)) == 1


class _Tree(NamedTuple):
    """Dialogues about the same images, each with the place of its sample among those of the batch."""

    images: list[Image.Image]
    dialogues: list[tuple[int, list[Piece]]]
    rejected: bool
    """Whether the images are the rejected ones of the first dialogue's sample."""


class _Rows(NamedTuple):
    """What the trees of a batch come to; rows in blocks of the trees."""

    rows: list[TokenizedRow]
    samples: list[int | None]
    """Of each row, the place of its sample; None where it only fills up its tree."""
    images: dict[str, Tensor]
    views: list[tuple[int, bool]]
    """Of each tree, the place of the sample whose images it has, and whether they are its rejected ones."""

    @property
    def trees(self) -> int:
        return len(self.views)


class Collator:
    """Makes a `Batch` of samples for an objective.

    Args:
        chat: of the model.
        dialogues: the objective's reading of a sample: equally many dialogues for each sample, with
            scored parts numbered below `parts`. It raises BadSample where a sample lacks something.
        parts: number of scored parts of a sample.
        max_length: tokens of a row, image tokens included; longer samples are bad samples, since
            cutting them would cut images or answers.
        on_bad_sample: stop at a bad sample, or leave it out and report it in `Batch.accounting`.
        max_positions: tokens of a row that the model has positions for; a longer one is a bad sample, too.
    """

    def __init__(
        self,
        chat: Chat,
        dialogues: Callable[[Sample], Sequence[Dialogue]],
        parts: int,
        max_length: int | None = None,
        on_bad_sample: OnBadSample = "raise",
        max_positions: int | None = None,
    ) -> None:
        self.chat, self.dialogues, self.parts = chat, dialogues, parts
        self.max_length, self.on_bad_sample = max_length, on_bad_sample
        self.max_positions = max_positions

    def __call__(self, samples: Sequence[Sample | BadSample]) -> Batch:
        """A batch of the good ones among `samples`, which may be fewer, or none.

        Raises:
            BadSample: with `on_bad_sample="raise"`, the first that cannot be trained on.
        """
        dropped: list[tuple[str, str]] = []
        reads = self._sift(list(enumerate(samples)), self._read, dropped)
        while reads:
            try:
                made = self._rows(_plant(reads))
            except ImagesRefused:
                taken = self._sift(reads, self._take, dropped)
                if len(taken) == len(reads):
                    raise
                reads = taken
                continue
            own = [(read, _rows_of(place, made)) for place, read in enumerate(reads)]
            fitting = self._sift(own, self._fit, dropped)
            if len(fitting) == len(reads):
                return self._batch(reads, made, dropped)
            reads = fitting
        nothing = torch.zeros(0, dtype=torch.long)
        return Batch(
            keys=[],
            num_parts=self.parts,
            tokens=Tokens({}, {}, nothing, nothing, nothing),
            layout=TreeLayout(num_trees=0, rows_per_tree=1),
            accounting=Accounting(dropped=dropped),
        )

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

    def _read(self, numbered: tuple[int, Sample | BadSample]) -> _Read:
        number, sample = numbered
        if isinstance(sample, BadSample):
            raise sample
        where = f"sample {sample.key}"
        check_sample(sample, where)
        dialogues = self.dialogues(sample)
        try:
            pieces = [self.chat.pieces(dialogue) for dialogue in dialogues]
        except ChatError as error:
            raise not_rendered(error, where) from error
        own = open_images(sample.images, f"{where}, images")
        other = own
        if sample.rejected_images and any(dialogue.rejected_images for dialogue in dialogues):
            other = open_images(sample.rejected_images, f"{where}, rejected_images")
        rejected = [dialogue.rejected_images and other is not own for dialogue in dialogues]
        images = [other if is_other else own for is_other in rejected]
        beginnings = (tuple(self.chat.beginning(dialogue)) for dialogue in pieces)
        origin = (tuple(sample.images), tuple(beginnings))
        return _Read(number, sample.key, pieces, images, origin, rejected)

    def _take(self, read: _Read) -> _Read:
        """The sample, if the processor takes its images when they are by themselves."""
        try:
            self._rows(_plant([read]))
        except ImagesRefused as error:
            raise not_rendered(error, f"sample {read.key}") from error
        return read

    def _rows(self, trees: list[_Tree]) -> _Rows:
        copies = max(len(tree.dialogues) for tree in trees)
        filled: list[list[tuple[int | None, list[Piece]]]] = [
            [*tree.dialogues, *[(None, tree.dialogues[0][1])] * (copies - len(tree.dialogues))]
            for tree in trees
        ]
        blocks = [[pieces for _, pieces in block] for block in zip(*filled, strict=True)]
        images = [tree.images for tree in trees]
        opened, tensors = self.chat.open_dialogues(blocks[0], images)
        rows = self._extend(opened, blocks[0])
        for block in blocks[1:]:
            same = all(
                self.chat.beginning(one) == self.chat.beginning(other)
                for one, other in zip(block, blocks[0], strict=True)
            )
            rows += self._extend(opened if same else self.chat.open_dialogues(block, images)[0], block)
        samples = [sample for block in zip(*filled, strict=True) for sample, _ in block]
        views = [(tree.dialogues[0][0], tree.rejected) for tree in trees]
        return _Rows(rows, samples, tensors, views)

    def _extend(self, opened: list[TokenizedRow], dialogues: Sequence[list[Piece]]) -> list[TokenizedRow]:
        return [self.chat.extend(row, pieces) for row, pieces in zip(opened, dialogues, strict=True)]

    def _fit(self, item: tuple[_Read, list[TokenizedRow]]) -> _Read:
        read, own = item
        longest = max(len(row.ids) for row in own)
        if self.max_length is not None and longest > self.max_length:
            detail = f"expected at most {self.max_length} tokens with its image tokens, got {longest}"
            raise BadSample(Reason.TOO_LONG, f"sample {read.key}", detail)
        if self.max_positions is not None and longest > self.max_positions:
            detail = (
                f"its {longest} tokens are more than the {self.max_positions} positions that the model was made for "
                "(max_position_embeddings in its config.json)"
            )
            raise BadSample(Reason.TOO_LONG, f"sample {read.key}", detail)
        if not any(part is not None for row in own for part in row.parts):
            raise BadSample(
                Reason.NO_TARGET, f"sample {read.key}", "no token of its answers is left to learn"
            )
        return read

    def _batch(self, reads: list[_Read], made: _Rows, dropped: list[tuple[str, str]]) -> Batch:
        inputs = pad_rows(made.rows, self.chat.tokenizer.pad_token_id or 0)
        width = inputs["input_ids"].shape[1]
        # The hidden state of token t predicts token t + 1.
        found = [
            (index * width + at - 1, row.ids[at], part * len(reads) + sample)
            for index, (row, sample) in enumerate(zip(made.rows, made.samples, strict=True))
            for at, part in enumerate(row.parts)
            if part is not None and sample is not None
        ]
        logit_index, labels, sequence_id = torch.tensor(found, dtype=torch.long).T.contiguous()
        return Batch(
            keys=[read.key for read in reads],
            num_parts=self.parts,
            tokens=Tokens(inputs, made.images, logit_index, labels, sequence_id),
            layout=TreeLayout(
                made.trees, len(made.rows) // made.trees, self._branches(made), views=made.views
            ),
            accounting=Accounting(kept=[read.number for read in reads], dropped=dropped),
        )

    def _branches(self, made: _Rows) -> list[Branch] | None:
        """None if images would have to stand in a tree more than once."""
        branches = build_branches([row.ids for row in made.rows], made.trees)
        images = set(self.chat.processor.image_token_ids)
        later = zip(made.rows[made.trees :], branches[made.trees :], strict=True)
        return (
            None if any(not images.isdisjoint(row.ids[branch.start :]) for row, branch in later) else branches
        )


def not_rendered(error: ChatError, where: str) -> BadSample:
    """Make the fault of a sample whose dialogue cannot be rendered, or whose images the processor refuses."""
    return BadSample(_REASONS.get(type(error), Reason.NOT_RENDERED), where, str(error).rstrip("."))


def _plant(reads: list[_Read]) -> list[_Tree]:
    """A tree for each origin; for each dialogue, where two of a sample are about different images."""
    if not all(read.shares_images for read in reads):
        sides = (zip(read.images, read.dialogues, read.rejected, strict=True) for read in reads)
        return [
            _Tree(images, [(place, pieces)], rejected)
            for block in zip(*sides, strict=True)
            for place, (images, pieces, rejected) in enumerate(block)
        ]
    trees: dict[Hashable, _Tree] = {}
    for place, read in enumerate(reads):
        tree = trees.setdefault(read.origin, _Tree(read.images[0], [], read.rejected[0]))
        tree.dialogues.extend((place, pieces) for pieces in read.dialogues)
    return list(trees.values())


def _rows_of(place: int, made: _Rows) -> list[TokenizedRow]:
    return [row for row, sample in zip(made.rows, made.samples, strict=True) if sample == place]


def pad_rows(rows: Sequence[TokenizedRow], pad: int) -> dict[str, Tensor]:
    """`input_ids`, `attention_mask` and the rows' extras, each (rows, T), padded right."""
    width = max(len(row.ids) for row in rows)
    inputs = {
        "input_ids": _padded([row.ids for row in rows], pad, width),
        "attention_mask": _padded([[1] * len(row.ids) for row in rows], 0, width),
    }
    return inputs | {name: _padded([row.extras[name] for row in rows], 0, width) for name in rows[0].extras}


def _padded(rows: list[list[int]], fill: int, width: int) -> Tensor:
    return torch.tensor([row + [fill] * (width - len(row)) for row in rows])
