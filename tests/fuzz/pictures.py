"""Broken images, and images that cost far more than they show."""

import io
import json
import random
import struct
import zlib
from collections.abc import Callable

from PIL import Image

from tests.fuzz.base import Case, Member, photo, rewrite

PNG_START = b"\x89PNG\r\n\x1a\n"
FITTING = 2000
"""Pixels a side of an image within the limits that are set for a case."""


def chunk(kind: bytes, data: bytes, check: int | None = None) -> bytes:
    """A chunk of a PNG."""
    found = zlib.crc32(kind + data) if check is None else check
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", found)


def png(
    width: int, height: int, *between: bytes, pixels: bytes = b"", depth: int = 8, colour: int = 2
) -> bytes:
    """A PNG that claims a size; `between` are whole chunks in front of the pixels."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    last = chunk(b"IDAT", zlib.compress(pixels, 9)) + chunk(b"IEND", b"")
    return PNG_START + chunk(b"IHDR", head) + b"".join(between) + last


def encoded(mode: str, size: tuple[int, int], format: str, **options: object) -> bytes:
    """An image of one colour."""
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, format, **options)
    return buffer.getvalue()


def jpeg_of_size(width: int, height: int) -> bytes:
    """A small JPEG whose header claims another size."""
    data = bytearray(photo(0, "first", "JPEG"))
    at = next(data.index(mark) for mark in (b"\xff\xc0", b"\xff\xc2") if mark in data)
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def webp(width: int, height: int, payload: bytes = b"", animated: bool = False) -> bytes:
    """A WebP whose canvas claims a size."""
    flags = bytes([2 if animated else 0, 0, 0, 0])
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + flags + canvas + payload
    return b"RIFF" + struct.pack("<I", len(body)) + body


def animated_webp(width: int, height: int) -> bytes:
    """A canvas of a claimed size with a small frame in its corner."""
    frame = encoded("RGB", (8, 8), "WEBP", lossless=True)[12:]
    place = bytes(6) + (7).to_bytes(3, "little") * 2 + bytes(4)
    part = b"ANMF" + struct.pack("<I", len(place + frame)) + place + frame
    return webp(width, height, b"ANIM" + struct.pack("<I", 6) + bytes(6) + part, animated=True)


def animation(format: str, count: int = 40) -> bytes:
    """Many frames."""
    frames = [Image.new("RGB", (24, 24), (n, 0, 0)) for n in range(count)]
    buffer = io.BytesIO()
    frames[0].save(buffer, format, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def with_texts(*texts: tuple[bytes, bytes]) -> bytes:
    """A PNG with chunks of text in front of its pixels."""
    return png(2, 2, *(chunk(*text) for text in texts), pixels=bytes(14))


def oriented(orientation: object) -> bytes:
    """A JPEG that is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded("RGB", (24, 12), "JPEG", exif=exif)


def _noisy_exif(rng: random.Random) -> bytes:
    data = encoded("RGB", (24, 12), "JPEG")
    exif = b"Exif\0\0" + b"II*\0\x08\0\0\0" + rng.randbytes(60)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


def _damaged(rng: random.Random) -> bytes:
    data = bytearray(photo(rng.randrange(9), "first", rng.choice(["PNG", "JPEG", "WEBP"])))
    for _ in range(rng.choice([1, 3, 20])):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def _cut(rng: random.Random) -> bytes:
    data = photo(rng.randrange(9), "first", rng.choice(["PNG", "JPEG", "WEBP"]))
    return data[: rng.randrange(len(data))]


def _profile(name: bytes, size: int) -> bytes:
    return name + b"\0\0" + zlib.compress(bytes(size), 9)


def _zeros(width: int, height: int) -> bytes:
    return bytes((3 * width + 1) * height)


MADE: dict[str, Callable[[random.Random], bytes]] = {
    "damaged": _damaged,
    "cut": _cut,
    "empty": lambda rng: b"",
    "noise": lambda rng: rng.randbytes(200),
    "start of a JPEG alone": lambda rng: b"\xff\xd8\xff" + rng.randbytes(50),
    "start of a PNG alone": lambda rng: PNG_START + rng.randbytes(50),
    "start of a WebP alone": lambda rng: b"RIFF\xff\xff\xff\xffWEBPVP8 " + rng.randbytes(50),
    "GIF": lambda rng: encoded("P", (24, 16), "GIF"),
    "TIFF": lambda rng: encoded("RGB", (24, 16), "TIFF"),
    "EPS": lambda rng: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "SVG": lambda rng: b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    "huge PNG": lambda rng: png(rng.choice([60_000, 2**31 - 1, 2**16]), rng.choice([60_000, 2**31 - 1])),
    "huge PNG that is all there": lambda rng: png(4000, 4000, pixels=_zeros(4000, 4000)),
    "huge JPEG": lambda rng: jpeg_of_size(65_500, 65_500),
    "huge JPEG within Pillow's limit": lambda rng: jpeg_of_size(9_000, 9_000),
    "huge WebP": lambda rng: webp(2**14, 2**14),
    "huge WebP within Pillow's limit": lambda rng: webp(9_000, 9_000, b"VP8 " + bytes(40)),
    "huge WebP of a small frame": lambda rng: animated_webp(*rng.choice([(16_000, 16_000), (9_000, 9_000)])),
    "WebP wider than WebP": lambda rng: webp(2**24, 2**24),
    "PNG of no size": lambda rng: png(0, rng.randrange(2)),
    "JPEG of no size": lambda rng: jpeg_of_size(0, rng.randrange(2)),
    "one pixel": lambda rng: encoded("RGB", (1, 1), rng.choice(["PNG", "JPEG", "WEBP"])),
    "a line": lambda rng: encoded("RGB", rng.choice([(150, 1), (1, 150)]), "PNG"),
    "a long line": lambda rng: encoded("RGB", rng.choice([(60_000, 1), (1, 60_000), (2_000_000, 2)]), "PNG"),
    "as large as may be": lambda rng: encoded("RGB", (FITTING, FITTING), rng.choice(["PNG", "JPEG", "WEBP"])),
    "one bit": lambda rng: encoded("1", (FITTING, FITTING), "PNG"),
    "sixteen bits": lambda rng: encoded("I;16", (500, 500), "PNG"),
    "grey with transparency": lambda rng: encoded("LA", (24, 16), "PNG"),
    "palette of nothing": lambda rng: png(2, 2, pixels=bytes(6), colour=3),
    "CMYK": lambda rng: encoded("CMYK", (24, 16), "JPEG"),
    "colour type that is none": lambda rng: png(2, 2, pixels=bytes(14), colour=5),
    "depth that is none": lambda rng: png(2, 2, pixels=bytes(14), depth=3),
    "more pixels than claimed": lambda rng: png(2, 2, pixels=bytes(2**26)),
    "fewer pixels than claimed": lambda rng: png(FITTING, FITTING, pixels=bytes(100)),
    "huge text": lambda rng: with_texts((b"tEXt", b"a\0" + b"x" * 2**22)),
    "text that unpacks": lambda rng: with_texts((b"zTXt", _profile(b"a", 2**27)[:-1])),
    "many texts that unpack": lambda rng: with_texts(
        *[(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**20), 9))] * 90
    ),
    "text that unpacks in other letters": lambda rng: with_texts(
        (b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(2**27), 9))
    ),
    "profile that unpacks": lambda rng: with_texts((b"iCCP", _profile(b"a", 2**27))),
    "exif in a text": lambda rng: with_texts((b"zTXt", _profile(b"Raw profile type exif", 2**20))),
    "chunk of a wrong sum": lambda rng: png(2, 2, chunk(b"gAMA", bytes(4), check=1), pixels=bytes(14)),
    "chunk beyond the end": lambda rng: PNG_START + struct.pack(">I", 2**31 - 1) + b"IHDR" + bytes(20),
    "many chunks": lambda rng: with_texts(*[(b"abCd", b"")] * 50_000),
    "animated PNG": lambda rng: animation("PNG"),
    "animated WebP": lambda rng: animation("WEBP"),
    "animated PNG of a million frames": lambda rng: png(
        2, 2, chunk(b"acTL", struct.pack(">II", 10**6, 0)), pixels=bytes(14)
    ),
    "turned": lambda rng: oriented(rng.choice([2, 5, 6, 8])),
    "turned by nonsense": lambda rng: oriented(rng.choice([0, 9, 65_535, "north", 1.5])),
    "exif of noise": _noisy_exif,
    "JPEG with text behind": lambda rng: photo(0, "first", "JPEG") + json.dumps({"prompt": "?"}).encode(),
}


def pictured(case: Case) -> None:
    """An image of one sample is another file."""
    name = case.pick(MADE)
    data = MADE[name](case.rng)

    def change(found: list[Member]) -> list[Member]:
        places = [at for at, member in enumerate(found) if not str(member.name).endswith(".json")]
        if not places:
            return found
        one = found[case.rng.choice(places)]
        case.touched.add(one.key)
        case.note(f"{one.name} is {name} ({len(data)} bytes)")
        return [Member(one.name, data) if member is one else member for member in found]

    rewrite(case, change)


def pictured_often(case: Case) -> None:
    """A sample with many images that are each as large as may be."""
    data = encoded("RGB", (FITTING, FITTING), "PNG")
    count = case.rng.choice([3, 40])
    case.note(f"{count} images of {FITTING} x {FITTING}")
    case.touched.add("s99")
    added = [Member(f"s99.{number}.png", data) for number in range(count)]
    text = json.dumps({"prompt": "Which?", "chosen": "This.", "rejected": "That."}).encode()
    rewrite(case, lambda found: [*found, *added, Member("s99.json", text)])


KINDS = {"picture": pictured, "pictures": pictured_often}
