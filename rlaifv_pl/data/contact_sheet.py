"""A contact sheet: samples as cards in a grid, each with its photos, its prompt and its answers."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.data.images import open_image
from rlaifv_pl.records import Sample

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# All sizes in pixels.
COLUMNS = 4
CARD_WIDTH = 380
PHOTO_HEIGHT = 250
GAP = 22
PADDING = 18
BODY_SIZE, LABEL_SIZE = 17, 13
LINE_SPACING = 1.35
MAX_LINES = 7

PAPER, CARD, EDGE = "#eceff1", "#ffffff", "#d5dbdf"
INK, FAINT = "#263238", "#90a4ae"
COLOURS = {"chosen": "#2e7d32", "rejected": "#c62828", "completion": "#1565c0", "correction": "#6a1b9a"}


@dataclass(frozen=True, slots=True)
class _Paragraph:
    """A piece of text on a card; one with a label gets a bar of the label's colour."""

    text: str
    label: str = ""

    @property
    def colour(self) -> str:
        return COLOURS.get(self.label, FAINT)


def draw_contact_sheet(samples: Sequence[Sample], path: Path) -> None:
    """Draw samples in rows of `COLUMNS` cards and write the sheet as a PNG.

    Raises:
        ValueError: there are no samples.
        BadSample: an image cannot be opened.
    """
    if not samples:
        raise ValueError("expected samples to draw, got none: the shards are empty.")
    cards = [_draw_card(sample) for sample in samples]
    rows = [cards[start : start + COLUMNS] for start in range(0, len(cards), COLUMNS)]
    heights = [max(card.height for card in row) for row in rows]
    width = GAP + max(map(len, rows)) * (CARD_WIDTH + GAP)
    sheet = Image.new("RGB", (width, GAP + sum(height + GAP for height in heights)), PAPER)
    draw = ImageDraw.Draw(sheet)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, card in enumerate(row):
            left = GAP + column * (CARD_WIDTH + GAP)
            draw.rectangle((left - 1, top - 1, left + CARD_WIDTH, top + height), fill=CARD, outline=EDGE)
            sheet.paste(card, (left, top))
        top += height + GAP
    with atomic_file(path) as file:
        sheet.save(file, "PNG")


def wrap(text: str, font: Font, width: int, max_lines: int = MAX_LINES) -> list[str]:
    """Break a text at spaces so that each line fits `width` pixels; what does not fit ends in an ellipsis."""
    lines = [""]
    for word in text.split():
        word = _cut(word, font, width)
        candidate = f"{lines[-1]} {word}".lstrip()
        if font.getlength(candidate) <= width:
            lines[-1] = candidate
        elif len(lines) == max_lines:
            lines[-1] = _cut(f"{candidate}...", font, width)
            break
        else:
            lines.append(word)
    return lines


def _cut(text: str, font: Font, width: int) -> str:
    """Shorten a text from its end until it fits, marking that."""
    if font.getlength(text) <= width:
        return text
    # By halves: letter by letter, a word of a hundred thousand letters would take an hour.
    beyond = bisect_left(
        range(len(text)), True, key=lambda length: font.getlength(f"{text[:length]}...") > width
    )
    return f"{text[: max(beyond - 1, 0)]}..."


def _draw_card(sample: Sample) -> Image.Image:
    blocks = [(paragraph, _lines(paragraph)) for paragraph in _paragraphs(sample)]
    photo_height = PHOTO_HEIGHT if sample.images else 0
    height = photo_height + PADDING + sum(_block_height(lines) + PADDING for _, lines in blocks)
    card = Image.new("RGB", (CARD_WIDTH, height), CARD)
    _paste_photos(card, sample)
    draw = ImageDraw.Draw(card)
    top = photo_height + PADDING
    for paragraph, lines in blocks:
        _draw_block(draw, top, paragraph, lines)
        top += _block_height(lines) + PADDING
    return card


def _paragraphs(sample: Sample) -> Iterator[_Paragraph]:
    yield _Paragraph(prompt_text(sample), label=sample.key)
    for side in ("chosen", "rejected", "completion"):
        if (text := getattr(sample, side)) is not None:
            yield _Paragraph(text, label=side)
    for turn in sample.corrections:
        yield _Paragraph(f"{turn.question} {turn.answer}", label="correction")


def prompt_text(sample: Sample) -> str:
    """A prompt as one text; a block that is an image stands there as `[image]`."""
    if isinstance(sample.prompt, str):
        return sample.prompt
    texts = []
    for message in sample.prompt:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts += [block["text"] if block["type"] == "text" else "[image]" for block in blocks]
    return " ".join(texts)


def _paste_photos(card: Image.Image, sample: Sample) -> None:
    """Lay the photos side by side; both sides' where the rejected one has its own."""
    photos = (*sample.images, *sample.rejected_images)
    for number, data in enumerate(photos):
        left, right = (CARD_WIDTH * place // len(photos) for place in (number, number + 1))
        photo = open_image(data, f"sample {sample.key!r}, image {number}")
        # Whole, not cropped: what an answer is right or wrong about may stand at the edge.
        card.paste(ImageOps.pad(photo, (right - left, PHOTO_HEIGHT), color=PAPER), (left, 0))


def _draw_block(draw: ImageDraw.ImageDraw, top: int, paragraph: _Paragraph, lines: Sequence[str]) -> None:
    draw.text((PADDING, top), paragraph.label, fill=paragraph.colour, font=_font(LABEL_SIZE))
    if paragraph.label in COLOURS:
        draw.rectangle((0, top, 4, top + _block_height(lines)), fill=paragraph.colour)
    for number, line in enumerate(lines):
        y = top + (LABEL_SIZE + number * BODY_SIZE) * LINE_SPACING
        draw.text((PADDING, y), line, fill=INK, font=_font(BODY_SIZE))


def _block_height(lines: Sequence[str]) -> int:
    return round((LABEL_SIZE + len(lines) * BODY_SIZE) * LINE_SPACING)


def _lines(paragraph: _Paragraph) -> list[str]:
    return wrap(paragraph.text, _font(BODY_SIZE), CARD_WIDTH - 2 * PADDING)


@lru_cache
def _font(size: int) -> Font:
    """Pillow's own font, so that a sheet looks the same on every machine."""
    return ImageFont.load_default(size)
