"""Collate samples into a batch: render their dialogues, tokenise them with their images, index the targets."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

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

Tree = list[tuple[int, int]]
"""Dialogues about the same images: the index of each one's sample, and its number in the sample."""

_REASONS: Mapping[type[ChatError], Reason] = {
    SpecialTokenError: Reason.SPECIAL_TOKEN,
    RenderedPromptError: Reason.RENDERED_PROMPT,
    ImagesRefused: Reason.UNFIT_IMAGE,
}


@dataclass(frozen=True, slots=True)
class RenderedSample:
    """A sample as rendered text and decoded images; the lists have an entry for each of its dialogues."""

    index: int
    """Index among the samples that were given to the collator."""
    key: str
    dialogues: list[list[Piece]]
    images: list[list[Image.Image]]
    shows_rejected: list[bool]
    """Whether the images are the sample's rejected ones."""
    origin: Hashable
    """Equal for samples with the same images and the same text up to their first answers."""


class Collator:
    """Collate samples into a `Batch` of an objective.

    Args:
        chat: chat of the model.
        dialogues: returns a sample's dialogues, equally many for each sample, with scored parts numbered below
            `parts`. It raises BadSample where a sample lacks something.
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
        """Return a batch of the good ones among `samples`, which may be fewer, or none.

        Raises:
            BadSample: with `on_bad_sample="raise"`, the first that cannot be trained on.
        """
        dropped: list[tuple[str, str]] = []
        rendered = []
        for index, sample in enumerate(samples):
            with self._dropping(dropped):
                rendered.append(self._render(index, sample))
        while rendered:
            trees = _group_into_trees(rendered)
            accepted = []
            try:
                rows, images = self._tokenize(rendered, trees)
            except ImagesRefused:
                for one in rendered:
                    with self._dropping(dropped):
                        self._check_images(one)
                        accepted.append(one)
                if len(accepted) == len(rendered):
                    raise
            else:
                sample_of_row = _sample_of_row(trees)
                for number, one in enumerate(rendered):
                    own = [row for row, owner in zip(rows, sample_of_row, strict=True) if owner == number]
                    with self._dropping(dropped):
                        self._check_rows(own, f"sample {one.key}")
                        accepted.append(one)
                if len(accepted) == len(rendered):
                    accounting = Accounting(kept=[one.index for one in rendered], dropped=dropped)
                    return self._batch(rendered, trees, rows, images, accounting)
            rendered = accepted
        return self._empty_batch(Accounting(dropped=dropped))

    @contextmanager
    def _dropping(self, dropped: list[tuple[str, str]]) -> Iterator[None]:
        """Note a bad sample in `dropped` in place of raising it, if bad samples are to be left out."""
        try:
            yield
        except BadSample as error:
            if self.on_bad_sample == "raise":
                raise
            dropped.append((error.where, str(error.reason)))

    def _render(self, index: int, sample: Sample | BadSample) -> RenderedSample:
        if isinstance(sample, BadSample):
            raise sample
        where = f"sample {sample.key}"
        check_sample(sample, where)
        dialogues = self.dialogues(sample)
        try:
            pieces = [self.chat.pieces(dialogue) for dialogue in dialogues]
        except ChatError as error:
            raise not_rendered(error, where) from error
        shows_rejected = [dialogue.rejected_images and bool(sample.rejected_images) for dialogue in dialogues]
        images = open_images(sample.images, f"{where}, images")
        rejected = (
            open_images(sample.rejected_images, f"{where}, rejected_images") if any(shows_rejected) else []
        )
        return RenderedSample(
            index=index,
            key=sample.key,
            dialogues=pieces,
            images=[rejected if is_rejected else images for is_rejected in shows_rejected],
            shows_rejected=shows_rejected,
            origin=(
                tuple(sample.rejected_images if all(shows_rejected) else sample.images),
                tuple(tuple(self.chat.beginning(dialogue)) for dialogue in pieces),
            ),
        )

    def _check_images(self, sample: RenderedSample) -> None:
        """Raise BadSample if the processor refuses the sample's images when they are by themselves."""
        try:
            self._tokenize([sample], _group_into_trees([sample]))
        except ImagesRefused as error:
            raise not_rendered(error, f"sample {sample.key}") from error

    def _tokenize(
        self, samples: Sequence[RenderedSample], trees: Sequence[Tree]
    ) -> tuple[list[TokenizedRow], dict[str, Tensor]]:
        """Tokenise the dialogues of the trees, and process the images of each tree once.

        Row r belongs to tree r % len(trees); a tree with fewer dialogues than others repeats its first one.
        """
        images = [samples[index].images[number] for (index, number), *_ in trees]
        rows_per_tree = max(map(len, trees))
        filled = [tree + tree[:1] * (rows_per_tree - len(tree)) for tree in trees]
        blocks = [
            [samples[index].dialogues[number] for index, number in block]
            for block in zip(*filled, strict=True)
        ]
        opened, tensors = self.chat.open_dialogues(blocks[0], images)
        beginnings = [self.chat.beginning(dialogue) for dialogue in blocks[0]]
        rows = []
        for block in blocks:
            is_shared = [self.chat.beginning(dialogue) for dialogue in block] == beginnings
            heads = opened if is_shared else self.chat.open_dialogues(block, images)[0]
            rows += [self.chat.extend(head, dialogue) for head, dialogue in zip(heads, block, strict=True)]
        return rows, tensors

    def _check_rows(self, rows: Sequence[TokenizedRow], where: str) -> None:
        """Raise BadSample if a sample's rows are too long, or hold no target."""
        longest = max(len(row.ids) for row in rows)
        if self.max_length is not None and longest > self.max_length:
            detail = f"expected at most {self.max_length} tokens with its image tokens, got {longest}"
            raise BadSample(Reason.TOO_LONG, where, detail)
        if self.max_positions is not None and longest > self.max_positions:
            detail = (
                f"its {longest} tokens are more than the {self.max_positions} positions that the model was made for "
                "(max_position_embeddings in its config.json)"
            )
            raise BadSample(Reason.TOO_LONG, where, detail)
        if not any(part is not None for row in rows for part in row.parts):
            raise BadSample(Reason.NO_TARGET, where, "no token of its answers is left to learn")

    def _batch(
        self,
        samples: Sequence[RenderedSample],
        trees: Sequence[Tree],
        rows: list[TokenizedRow],
        images: dict[str, Tensor],
        accounting: Accounting,
    ) -> Batch:
        inputs = pad_rows(rows, self.chat.tokenizer.pad_token_id or 0)
        width = inputs["input_ids"].shape[1]
        # The hidden state of token t predicts token t + 1.
        targets = [
            (index * width + token - 1, row.ids[token], part * len(samples) + sample)
            for index, (row, sample) in enumerate(zip(rows, _sample_of_row(trees), strict=True))
            for token, part in enumerate(row.parts)
            if part is not None and sample is not None
        ]
        logit_index, labels, sequence_id = torch.tensor(targets, dtype=torch.long).T.contiguous()
        views = [(index, samples[index].shows_rejected[number]) for (index, number), *_ in trees]
        return Batch(
            keys=[sample.key for sample in samples],
            num_parts=self.parts,
            tokens=Tokens(inputs, images, logit_index, labels, sequence_id),
            layout=TreeLayout(
                len(trees), len(rows) // len(trees), self._branches(rows, len(trees)), views=views
            ),
            accounting=accounting,
        )

    def _empty_batch(self, accounting: Accounting) -> Batch:
        no_targets = torch.zeros(0, dtype=torch.long)
        return Batch(
            keys=[],
            num_parts=self.parts,
            tokens=Tokens({}, {}, no_targets, no_targets, no_targets),
            layout=TreeLayout(num_trees=0, rows_per_tree=1),
            accounting=accounting,
        )

    def _branches(self, rows: Sequence[TokenizedRow], num_trees: int) -> list[Branch] | None:
        """Return the branches of the rows; None if images would have to stand in a tree more than once."""
        branches = build_branches([row.ids for row in rows], num_trees)
        image_tokens = set(self.chat.processor.image_token_ids)
        later = zip(rows[num_trees:], branches[num_trees:], strict=True)
        repeats_image = any(not image_tokens.isdisjoint(row.ids[branch.start :]) for row, branch in later)
        return None if repeats_image else branches


def not_rendered(error: ChatError, where: str) -> BadSample:
    """Return the fault of a sample whose dialogue cannot be rendered, or whose images the processor refuses."""
    return BadSample(_REASONS.get(type(error), Reason.NOT_RENDERED), where, str(error).rstrip("."))


def _group_into_trees(samples: Sequence[RenderedSample]) -> list[Tree]:
    """Return a tree for each origin; for each dialogue, where two of a sample show different images."""
    own = [
        [(index, number) for number in range(len(sample.dialogues))] for index, sample in enumerate(samples)
    ]
    if any(len(set(sample.shows_rejected)) > 1 for sample in samples):
        return [[dialogue] for block in zip(*own, strict=True) for dialogue in block]
    trees: dict[Hashable, Tree] = {}
    for sample, dialogues in zip(samples, own, strict=True):
        trees.setdefault(sample.origin, []).extend(dialogues)
    return list(trees.values())


def _sample_of_row(trees: Sequence[Tree]) -> list[int | None]:
    """Return the index of each row's sample; None where the row only fills up its tree."""
    rows_per_tree = max(map(len, trees))
    return [tree[row][0] if row < len(tree) else None for row in range(rows_per_tree) for tree in trees]


def pad_rows(rows: Sequence[TokenizedRow], pad: int) -> dict[str, Tensor]:
    """Return `input_ids`, `attention_mask` and the rows' extras, each (rows, T), padded right."""
    width = max(len(row.ids) for row in rows)
    inputs = {
        "input_ids": _padded([row.ids for row in rows], pad, width),
        "attention_mask": _padded([[1] * len(row.ids) for row in rows], 0, width),
    }
    return inputs | {name: _padded([row.extras[name] for row in rows], 0, width) for name in rows[0].extras}


def _padded(rows: list[list[int]], fill: int, width: int) -> Tensor:
    return torch.tensor([row + [fill] * (width - len(row)) for row in rows])
