"""Every mode of an image opens to the same eight bits on white, everywhere; what is no image is named."""

import base64
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.contact_sheet import draw_contact_sheet
from rlaifv_pl.data.images import SOURCE_FORMATS, inspect_image, open_image, portable_image, storable_image
from rlaifv_pl.data.rgb import paint
from rlaifv_pl.feedback.engines.engine import Request
from rlaifv_pl.feedback.engines.in_memory import _open
from rlaifv_pl.feedback.engines.requests import ChatRequest, request_messages
from rlaifv_pl.report.thumbnails import Thumbnails
from tests.data.samples import pair, picture

REPORTS = Path(__file__).parent / "reports"
QUARTER_TURN = Image.Exif()
QUARTER_TURN[0x0112] = 6


def encode(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png(width, depth, colour_type, row, transparent=b"", palette=b""):
    """A PNG of one line, written by the standard's book: Pillow cannot write all kinds."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    chunks = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, colour_type, 0, 0, 0))
    chunks += chunk(b"PLTE", palette) if palette else b""
    chunks += chunk(b"tRNS", transparent) if transparent else b""
    chunks += chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def shorts(*values):
    return struct.pack(f">{len(values)}H", *values)


def grey16(*values):
    return Image.fromarray(np.array([values], np.uint16))


def pixels(data):
    """The first line."""
    return [tuple(pixel) for pixel in np.asarray(open_image(data, "here", SOURCE_FORMATS))[0].tolist()]


def greys(*levels):
    return [(level, level, level) for level in levels]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encode(grey16(0, 257, 30000, 65535)), greys(0, 1, 117, 255)),
        (encode(grey16(0, 257, 30000, 65535), "TIFF"), greys(0, 1, 117, 255)),
        (encode(grey16(0, 30000, 65535), "TIFF", tiffinfo={262: 0}), greys(255, 138, 0)),
        (b"P5 3 1 1023\n" + shorts(0, 341, 1023), greys(0, 85, 255)),
        (b"P5 3 1 100\n" + bytes([0, 20, 100]), greys(0, 51, 255)),
        (png(2, 16, 2, shorts(65535, 0, 30000, 0, 0, 65535)), [(255, 0, 117), (0, 0, 255)]),
        (png(4, 2, 0, bytes([0b00011011])), greys(0, 85, 170, 255)),
        (png(8, 1, 0, bytes([0b01010101])), greys(0, 255, 0, 255, 0, 255, 0, 255)),
        (
            encode(
                Image.fromarray(np.array([[0, 0.5, 1]], np.float32)), "TIFF", tiffinfo={340: 0.0, 341: 1.0}
            ),
            greys(0, 128, 255),
        ),
        (encode(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "TIFF"), [(255, 0, 0)]),
    ],
)
def test_levels_are_scaled_to_eight_bits(data, expected):
    assert pixels(data) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encode(Image.new("RGBA", (1, 1), (0, 0, 0, 0))), greys(255)),
        (encode(Image.new("RGBA", (1, 1), (255, 0, 0, 51))), [(255, 204, 204)]),
        (encode(Image.new("RGBA", (1, 1), (255, 0, 0, 51)), "WEBP", lossless=True), [(255, 204, 204)]),
        (encode(Image.new("LA", (1, 1), (0, 102))), greys(153)),
        (encode(Image.new("PA", (1, 1), (0, 102)), "TIFF"), greys(153)),
        (encode(Image.new("P", (1, 1), 0), "GIF", transparency=0), greys(255)),
        (png(2, 8, 3, bytes([0, 1]), bytes([0]), bytes([1, 2, 3, 4, 5, 6])), [(255, 255, 255), (4, 5, 6)]),
        (png(2, 8, 2, bytes([1, 2, 3, 4, 5, 6]), shorts(1, 2, 3)), [(255, 255, 255), (4, 5, 6)]),
        (png(2, 8, 0, bytes([7, 8]), shorts(7)), greys(255, 8)),
        (png(2, 16, 0, shorts(300, 30000), shorts(300)), greys(255, 117)),
        (png(2, 16, 2, shorts(9, 9, 9, 0, 65535, 0), shorts(9, 9, 9)), [(255, 255, 255), (0, 255, 0)]),
        (png(2, 16, 4, shorts(0, 0, 30000, 65535)), greys(255, 117)),
        (png(4, 2, 0, bytes([0b00011011]), shorts(1)), greys(0, 255, 170, 255)),
        (png(8, 1, 0, bytes([0b01010101]), shorts(0)), greys(*[255] * 8)),
    ],
)
def test_transparent_ground_is_white_in_every_mode(data, expected):
    opened = inspect_image(data, "here", SOURCE_FORMATS)
    assert opened.is_transparent and pixels(data) == expected


def test_an_alpha_channel_without_effect_is_not_called_transparent():
    assert not inspect_image(encode(Image.new("RGBA", (2, 2), (1, 2, 3, 255))), "here").is_transparent


def test_a_picture_in_lab_has_its_colours():
    """Of sRGB (200, 50, 30), by the profiles of the colour management, to 2 levels."""
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    red = ImageCms.profileToProfile(Image.new("RGB", (1, 1), (200, 50, 30)), srgb, lab, outputMode="LAB")
    assert np.abs(np.array(pixels(encode(red, "TIFF"))[0]) - (200, 50, 30)).max() <= 2


@pytest.mark.parametrize("mode", ["I", "F"])
def test_values_without_a_known_range_are_refused_by_name(mode):
    with pytest.raises(BadSample, match=f"mode {mode}") as raised:
        open_image(encode(Image.new(mode, (2, 2), 1), "TIFF"), "here", SOURCE_FORMATS)
    assert raised.value.reason is Reason.UNKNOWN_RANGE
    with pytest.raises(BadSample):
        paint(Image.new(mode, (2, 2)), "here")


def test_every_mode_of_pillow_is_painted_or_refused_by_name():
    grey, coloured = (
        ("1", "L", "LA", "La", "I;16", "I;16L", "I;16B"),
        ("P", "PA", "RGB", "RGBA", "RGBX", "RGBa"),
    )
    for mode in (*grey, *coloured, "CMYK", "YCbCr", "LAB", "HSV"):
        assert paint(Image.new(mode, (2, 2)), mode).image.mode == "RGB"


def test_the_reports_open_as_one_sees_them():
    ramp = np.asarray(open_image((REPORTS / "i16.png").read_bytes(), "here"))
    raw = np.asarray(Image.open(REPORTS / "i16.png"))
    assert raw.max() > 255 and np.abs(ramp[..., 0].astype(float) - raw / 257).max() <= 0.5
    logo = np.asarray(open_image((REPORTS / "rgba_blacklogo.png").read_bytes(), "here"))
    alpha = np.asarray(Image.open(REPORTS / "rgba_blacklogo.png"))[..., 3]
    assert (logo[alpha == 0] == 255).all() and (logo[alpha == 255] == 0).all() and (alpha == 0).any()


def frames(format, **options):
    red, blue = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    return encode(red, format, save_all=True, append_images=[blue], **options)


@pytest.mark.parametrize(
    "data",
    [frames("GIF"), frames("PNG"), frames("WEBP", lossless=True), frames("TIFF")],
)
def test_of_several_frames_the_first_is_shown_and_told_of(data):
    assert inspect_image(data, "here", SOURCE_FORMATS).is_first_frame
    assert pixels(data)[0] == (255, 0, 0)


def test_the_second_picture_of_a_phone_is_no_frame():
    """A JPEG with a preview behind it (MPO) is one photo to everybody."""
    assert not inspect_image(frames("MPO"), "here").is_first_frame


ODD = {
    "transparent": encode(Image.new("RGBA", (60, 40), (0, 0, 0, 0))),
    "16 bits": encode(Image.new("I;16", (60, 40), 65535)),
    "turned": encode(Image.new("RGB", (40, 60), "white"), "JPEG", exif=QUARTER_TURN),
    "frames": encode(
        Image.new("RGB", (60, 40), "white"),
        "WEBP",
        save_all=True,
        append_images=[Image.new("RGB", (60, 40))],
        lossless=True,
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_training_feedback_servers_pages_and_sheets_show_the_same_picture(name, tmp_path):
    """All white, 60 x 40, whoever decodes what leaves us: Pillow's plain `convert`, as a server may do."""
    data = ODD[name]
    opened = open_image(data, "here")
    assert opened.size == (60, 40) and np.asarray(opened).min() == 255
    (asked,) = _open(Request("?", (data,), "here"))
    assert asked.tobytes() == opened.tobytes()

    sent = ChatRequest({"messages": request_messages(Request("?", (data,), "here"))}, "here").wire[
        "messages"
    ][0]["content"]
    url = next(block["image_url"]["url"] for block in sent if block["type"] == "image_url")
    thumbnails = Thumbnails(size=224, limit=None)
    thumbnails.add(data, "here")
    for encoded in (url.partition(",")[2], thumbnails.text):
        seen = Image.open(io.BytesIO(base64.b64decode(encoded)))
        assert getattr(seen, "n_frames", 1) == 1 and seen.size == (60, 40)
        assert np.asarray(seen.convert("RGB")).min() >= 254

    draw_contact_sheet([pair(images=(data,))], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert np.asarray(sheet.convert("RGB"))[22 + 125, 22 + 190].min() == 255


def test_an_ordinary_file_leaves_as_it_is():
    for data in (picture(), picture("PNG"), picture("WEBP"), encode(Image.new("L", (3, 2)))):
        assert portable_image(data, "here") is data


def test_files_of_other_formats_become_png_for_a_sample():
    assert storable_image(picture(), "here") == picture()
    assert pixels(storable_image(frames("GIF"), "here"))[0] == (255, 0, 0)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ((REPORTS / "html.jpg").read_bytes(), "HTML"),
        (b"\xef\xbb\xbf\n<html>Sign in</html>", "HTML"),
        ("<!DOCTYPE html>".encode("utf-16"), "HTML"),
        (b'{"error": "not found"}', "JSON"),
        (b'<?xml version="1.0"?><Error>Access denied</Error>', "XML"),
        (b'<?xml version="1.0"?>\n<!-- by hand -->\n<svg xmlns="s"></svg>', "SVG"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "Git LFS pointer"),
        (b"Too many requests", "a text"),
        (b"", "an empty file"),
        (b"\0" * 20, "20 zero bytes"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "MP4"),
        (b"%PDF-1.7", "PDF"),
        (b"PK\3\4", "ZIP"),
        (b"\x01\x02\x99\xfe", "no known kind"),
        (
            encode(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")[:1500],
            "JPEG image of 1500 bytes.* cut off",
        ),
        (encode(Image.effect_noise((64, 64), 50))[:1500], "PNG image of 1500 bytes.* cut off"),
    ],
)
def test_what_is_no_image_is_named_for_what_it_is(data, named):
    with pytest.raises(BadSample, match=named) as raised:
        open_image(data, "here", SOURCE_FORMATS)
    assert raised.value.reason is Reason.UNDECODABLE_IMAGE
    assert "0x" not in str(raised.value)
