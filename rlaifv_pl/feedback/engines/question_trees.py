"""Many questions about an image as one prefix tree: what comes before their first difference is read once."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image

from rlaifv_pl.data.collate import pad_rows
from rlaifv_pl.feedback.engines.engine import EngineError
from rlaifv_pl.models.chat import Chat
from rlaifv_pl.models.prefix_tree import Branch
from rlaifv_pl.models.tokenization import TokenizedRow
from rlaifv_pl.models.vlm import Batch, Tokens, TreeLayout


class ImageQuestions(NamedTuple):
    """Rendered texts about the same images."""

    images: Sequence[Image.Image]
    texts: Sequence[str]
    where: str
    """What they are about, named in errors."""


class QuestionTree(NamedTuple):
    """A text that is read once, and the tokens of what follows in each of several rows."""

    images: Sequence[Image.Image]
    prefix: str
    suffixes: list[list[int]]
    where: str
    """What it is about, named in errors."""


def fork(chat: Chat, asked: ImageQuestions) -> list[QuestionTree]:
    """Where texts part: behind their images, and before the last token of the shortest.

    Texts that part before their images come back each by itself.

    Raises:
        EngineError: an image stands at the very end of a text.
    """
    out = chat.tokenizer(list(asked.texts), add_special_tokens=False, return_offsets_mapping=True)
    rows, text = out["input_ids"], asked.texts[0]
    common = 0
    while common < min(map(len, rows)) - 1 and len({row[common] for row in rows}) == 1:
        common += 1
    prefix = text[: out["offset_mapping"][0][common - 1][1]] if common else ""
    if prefix and not any(mark in text[len(prefix) :] for mark in chat.markers):
        return [QuestionTree(asked.images, prefix, [row[common:] for row in rows], asked.where)]
    if len(rows) == 1:
        raise EngineError(
            f"an image stands at the end of what the chat template makes of a question: {text!r}"
        )
    return [parted for one in asked.texts for parted in fork(chat, asked._replace(texts=[one]))]


def tree(chat: Chat, forks: Sequence[QuestionTree], tokens: Sequence[int]) -> Batch:
    """A batch whose targets are each of the tokens behind each of the suffixes, fork by fork.

    A fork with fewer suffixes than another repeats its first row, which costs nothing in a tree.
    """
    opened, images = chat.open([at.prefix for at in forks], [at.images for at in forks])
    copies = max(len(at.suffixes) for at in forks)
    rows, branches = [], []
    for copy in range(copies):
        for number, (at, head) in enumerate(zip(forks, opened, strict=True)):
            is_own = copy < len(at.suffixes)
            row = _continued(head, at.suffixes[copy if is_own else 0])
            start = len(head.ids) if is_own else len(row.ids)
            branches.append(Branch(number, start if copy else 0, len(row.ids)))
            rows.append(row)
    inputs = pad_rows(rows, chat.tokenizer.pad_token_id or 0)
    width = inputs["input_ids"].shape[1]
    asked = [(copy * len(forks) + n, n) for n, at in enumerate(forks) for copy in range(len(at.suffixes))]
    return Batch(
        keys=[str(number) for number in range(len(forks))],
        num_parts=1,
        tokens=Tokens(
            rows=inputs,
            images=images,
            logit_index=torch.tensor(
                [row * width + len(rows[row].ids) - 1 for row, _ in asked for _ in tokens]
            ),
            labels=torch.tensor(list(tokens)).repeat(len(asked)),
            sequence_id=torch.tensor([number for _, number in asked for _ in tokens]),
        ),
        layout=TreeLayout(len(forks), copies, branches),
    )


def _continued(head: TokenizedRow, suffix: list[int]) -> TokenizedRow:
    # Token types of the vision inputs: 0 is text in every family.
    extras = {name: values + [0] * len(suffix) for name, values in head.extras.items()}
    return TokenizedRow(head.ids + suffix, head.parts + [None] * len(suffix), extras)
