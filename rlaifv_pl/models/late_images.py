"""Rows of dialogues that show images behind answers that are learned, as those that show them all before."""

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from rlaifv_pl.models.chat import Chat, Piece, TokenizedRow
from rlaifv_pl.models.processing import cut


def begin(
    chat: Chat, dialogues: Sequence[list[Piece]], images: Sequence[Sequence[Image.Image]]
) -> tuple[list[TokenizedRow], dict[str, Tensor]]:
    """Rows of dialogues up to the last piece that shows an image, and the tensors of their images.

    Args:
        dialogues: in pieces.
        images: of each, in order.
    """
    beginnings = [chat.beginning(pieces) for pieces in dialogues]
    rows, tensors = chat.open(["".join(piece.text for piece in some) for some in beginnings], images)
    return [
        _parted(chat, row, some, shown) if len(some) > 1 else row
        for row, some, shown in zip(rows, beginnings, images, strict=True)
    ], tensors


def _parted(
    chat: Chat, opened: TokenizedRow, pieces: list[Piece], images: Sequence[Image.Image]
) -> TokenizedRow:
    """The row that was opened as a whole, cut at its pieces, of which some are targets."""
    pieces = _expanded(chat, pieces, images)
    added = 0 if chat.writes_bos(pieces[0].text) else chat.tokenizer.num_special_tokens_to_add()
    row = TokenizedRow(opened.ids[:added], [None] * added, {})
    for piece, ids in zip(pieces, cut(chat.tokenizer, [piece.text for piece in pieces]), strict=True):
        row.ids += ids
        row.parts += [piece.part] * len(ids)
    # Token types of the vision inputs: 0 is text and 1 an image in every family.
    of_images = [int(token in chat.processor.image_token_ids) for token in row.ids]
    row.extras = {name: of_images[:] for name in opened.extras}
    return row


def _expanded(chat: Chat, pieces: list[Piece], images: Sequence[Image.Image]) -> list[Piece]:
    """The pieces with all tokens of an image in place of its marker, as the processor writes them."""
    text = "".join(piece.text for piece in pieces)
    out = chat.processor(text=[text], images=[list(images)], return_text_replacement_offsets=True)
    (replaced,) = out["text_replacement_offsets"]
    expanded, start = [], 0
    for piece in pieces:
        end, written, at = start + len(piece.text), "", start
        for image in replaced:
            first, past = image["span"]
            if start <= first < end:
                written += text[at:first] + image["replacement"]
                at = past
        expanded.append(Piece(written + text[at:end], piece.part))
        start = end
    return expanded
