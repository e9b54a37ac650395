"""Drawn stand-ins for real photos: JPEGs of coloured shapes with known objects, for clones without the photos.

Names, sizes and objects are fixed by a seed. What is drawn looks like nothing in particular: the tests that use
these pictures ask for bytes, sizes and object lists, and their models are random.
"""

import json
import os
import random
import shutil
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

COUNT = 128
CLASSES = (
    "person", "car", "chair", "dog", "cat", "bottle", "cup", "bicycle", "bus", "truck", "boat", "bench", "bird",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie",
    "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "skateboard", "surfboard",
    "tennis racket", "wine glass", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
    "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "couch", "potted plant", "bed", "dining table",
    "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush", "airplane",
    "motorcycle", "train", "traffic light", "fire hydrant", "stop sign", "parking meter", "baseball glove",
)  # fmt: skip
WEIGHTS = [rank**-1.5 for rank in range(1, len(CLASSES) + 1)]
"""Some classes are common and most are rare, as in real photos."""
SIZES = ((384, 256), (256, 384), (320, 240), (384, 384))


def drawn_photos() -> Path:
    """Directory with `images/*.jpg` and `objects.json`, drawn once a machine and user."""
    directory = Path(tempfile.gettempdir()) / f"rlaifv-drawn-photos-{os.getuid()}"
    if not (directory / "objects.json").is_file():
        own = Path(tempfile.mkdtemp())
        _draw_all(own)
        try:
            own.rename(directory)
        except OSError:  # Another process was faster.
            shutil.rmtree(own)
    return directory


def _draw_all(directory: Path) -> None:
    rng, objects = random.Random(0), {}
    (directory / "images").mkdir()
    for number in range(COUNT):
        name = f"{7 * number + 9:012d}"
        counts = {
            one: rng.randint(1, 4) for one in rng.sample(CLASSES, rng.choice((0, 1, 1, 2, 2, 2, 3, 3, 4, 5)))
        }
        _draw(counts, rng).save(directory / "images" / f"{name}.jpg", quality=85)
        objects[name] = {"counts": counts}
    (directory / "objects.json").write_text(json.dumps(objects))


def _draw(counts: dict[str, int], rng: random.Random) -> Image.Image:
    """An ellipse for each object, coloured by its class, before a field of noise."""
    size = rng.choice(SIZES)
    noise = Image.frombytes("RGB", (16, 16), rng.randbytes(16 * 16 * 3))
    picture = noise.resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for name, count in counts.items():
        hue = 360 * CLASSES.index(name) // len(CLASSES)
        for _ in range(count):
            x, y = rng.randrange(size[0] - 40), rng.randrange(size[1] - 40)
            draw.ellipse(
                (x, y, x + rng.randint(20, 120), y + rng.randint(20, 120)), fill=f"hsl({hue}, 80%, 50%)"
            )
    return picture
