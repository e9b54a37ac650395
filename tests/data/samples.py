"""Small samples and images, made on the spot."""

import io
import struct
import tarfile
import zlib
from pathlib import Path

import webdataset
from PIL import Image

from rlaifv_pl.data.shards import load_shards
from rlaifv_pl.records import Sample


def picture(format: str = "JPEG", colour: int = 128, size: tuple[int, int] = (24, 16), **options) -> bytes:
    """An encoded image of one grey."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (colour, colour, colour)).save(buffer, format, **options)
    return buffer.getvalue()


def pair(key: str = "a", **changes) -> Sample:
    """A sound preference sample with one image, but for the changes."""
    fields = {
        "prompt": "How many cats?",
        "images": (picture(),),
        "chosen": "Two cats.",
        "rejected": "Six dogs.",
    }
    return Sample(key=key, **(fields | changes))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims a huge size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def check_streaming(directory) -> int:
    """Check that webdataset, as anybody uses it, yields every sample with all of its images; returns their number."""
    shards = load_shards(directory)
    held = {one.key: [*one.images, *one.rejected_images] for one in (shards[at] for at in range(len(shards)))}
    tars = sorted(str(path) for path in Path(directory).glob("*.tar"))
    read = webdataset.WebDataset(tars, shardshuffle=False)
    images = ("jpg", "png", "webp")
    streamed = {
        one["__key__"]: [one[name] for name in sorted(one, key=_images_first) if name.endswith(images)]
        for one in read
    }
    assert streamed == held
    return sum(map(len, held.values()))


def _images_first(name: str) -> tuple[bool, list[str]]:
    """Of the rejected side's last, each side's by number."""
    return name.startswith("rejected"), [part.zfill(4) for part in name.split(".")]


def write_tar(path, members, format=tarfile.USTAR_FORMAT):
    """Members are names with contents, or ready headers."""
    with tarfile.open(path, "w", format=format) as tar:
        for member, data in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(data)
            if format == tarfile.PAX_FORMAT:
                info.pax_headers = {"comment": "asks for a header that is not plain ustar"}
            tar.addfile(info, io.BytesIO(data))
    return path
