"""Images of rows come in many forms; what is stored is the file as it was."""

import base64
import json
import os
from urllib.parse import quote_from_bytes

import pytest
from PIL import Image as Pillow

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.importers import fetch_image
from rlaifv_pl.data.importers.images import ImageLoader
from rlaifv_pl.data.remote_directory import RetryPolicy
from tests.data.file_server import FileServer, status
from tests.data.samples import picture

JPEG = picture()


def encoded(data):
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("data", [JPEG, picture("PNG"), picture("WEBP")])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda data: data,
        lambda data: [data],
        lambda data: {"bytes": data, "path": "elsewhere.jpg"},
        lambda data: {"bytes": None, "path": "1.img"},
        lambda data: "1.img",
        encoded,
        lambda data: f"data:image/any;base64,{encoded(data)}",
        lambda data: f"data:image/jpg;base64,{encoded(data)}",
        lambda data: f"data:image/png;charset=utf-8;base64,{encoded(data)}",
        lambda data: f"DATA:;base64,{encoded(data)}",
        lambda data: f"image/png;base64,{encoded(data)}",
        lambda data: f"base64,{encoded(data)}",
        lambda data: f"data:image/png,{quote_from_bytes(data)}",
        lambda data: base64.encodebytes(data).decode(),
        lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="),
        lambda data: f"  {encoded(data)}\n",
        lambda data: encoded(data).encode(),
        lambda data: str(encoded(data).encode()),
        lambda data: str(data),
        lambda data: list(data),
        lambda data: {"bytes": encoded(data), "path": None},
        lambda data: {"bytes": list(data), "path": None},
        lambda data: {"url": f"data:image/png;base64,{encoded(data)}"},
        lambda data: {"base64": encoded(data)},
        lambda data: json.dumps(["1.img"]),
        lambda data: json.dumps({"path": "1.img"}),
        lambda data: str(["1.img"]),
        lambda data: " 1.img ",
        lambda data: ".\\1.img",
        lambda data: "sub\\..\\1.img",
        lambda data: "%31.img",
        lambda data: "file:1.img",
        lambda data: "file://1.img",
        lambda data: [None, "1.img", ""],
    ],
)
def test_images_are_kept_byte_by_byte_however_they_come(tmp_path, data, wrap):
    (tmp_path / "1.img").write_bytes(data)
    assert ImageLoader(tmp_path).load(wrap(data)) == (data,)


@pytest.mark.parametrize(
    "value", [None, "", "  ", "None", "null", "NaN", float("nan"), [], [None], ["", "nan"]]
)
def test_what_says_that_there_is_no_image_is_none(tmp_path, value):
    assert ImageLoader(tmp_path).load(value) == ()


def test_bmp_and_tiff_in_base64_are_told_from_paths(tmp_path):
    for format in ("BMP", "TIFF"):
        (stored,) = ImageLoader(tmp_path).load(encoded(picture(format)))
        assert stored.startswith(b"\x89PNG")


def test_uris_and_the_home_directory_lead_to_files_below_the_root_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "my photos"
    folder.mkdir()
    (folder / "a b.jpg").write_bytes(JPEG)
    uri = (folder / "a b.jpg").as_uri()
    assert "%20" in uri
    spellings = [
        uri,
        uri.replace("file://", "file://localhost"),
        "~/my photos/a b.jpg",
        str(folder / "a b.jpg"),
    ]
    for text in spellings:
        assert ImageLoader(folder).load(text) == (JPEG,)
        elsewhere = ImageLoader(tmp_path / "elsewhere")
        with pytest.raises(BadSample, match=r"--images_root '.*my photos'") as raised:
            elsewhere.load(text)
        assert raised.value.reason is Reason.MISSING_IMAGE and elsewhere.findings.outside == folder


def test_relative_paths_may_start_from_the_source_but_not_leave_the_root(tmp_path):
    for name in ("data/json", "data/images", "other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data" / "images" / "1.jpg").write_bytes(JPEG)
    (tmp_path / "other" / "1.jpg").write_bytes(JPEG)
    loader = ImageLoader(tmp_path / "data", tmp_path / "data" / "json")
    assert loader.load(["images/1.jpg", "../images/1.jpg"]) == (JPEG, JPEG)
    for text in ("../../other/1.jpg", "images/../../other/1.jpg", "%2e%2e/%2e%2e/other/1.jpg"):
        with pytest.raises(BadSample) as raised:
            loader.load(text)
        assert raised.value.reason is Reason.MISSING_IMAGE


@pytest.mark.parametrize(
    "value", [Pillow.new("RGB", (3, 2)), picture("GIF"), picture("BMP"), picture("TIFF")]
)
def test_other_images_become_png(tmp_path, value):
    (stored,) = ImageLoader(tmp_path).load(value)
    assert stored.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "it is no file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is no file"),
        (lambda path: (path.touch(), os.truncate(path, 2**40)), f"it has {2**40} bytes"),
        (lambda path: path.symlink_to(path.name), "symbolic links"),
    ],
)
def test_images_without_an_end_are_not_read(tmp_path, make, words):
    make(tmp_path / "1.jpg")
    with pytest.raises(BadSample, match=words) as raised:
        ImageLoader(tmp_path).load("1.jpg")
    assert raised.value.reason is Reason.MISSING_IMAGE


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("../secret.jpg", Reason.MISSING_IMAGE),
        ("/etc/passwd", Reason.MISSING_IMAGE),
        ("a\0b", Reason.MISSING_IMAGE),
        ("x" * 5000, Reason.MISSING_IMAGE),
        (".", Reason.MISSING_IMAGE),
        ("https://example.org/1.jpg", Reason.MISSING_IMAGE),
        ("s3://bucket/1.jpg", Reason.MISSING_IMAGE),
        ("file:///etc/passwd", Reason.MISSING_IMAGE),
        ("file://%2e%2e/secret.jpg", Reason.MISSING_IMAGE),
        ("~/secret.jpg", Reason.MISSING_IMAGE),
        ("..\\secret.jpg", Reason.MISSING_IMAGE),
        ({"bytes": None, "path": None}, Reason.MISSING_IMAGE),
        ("data:image/png;base64,%%%", Reason.UNDECODABLE_IMAGE),
        (b"%!PS-Adobe-3.0 EPSF-3.0", Reason.UNDECODABLE_IMAGE),
        (7, Reason.WRONG_TYPE),
    ],
)
def test_images_that_are_not_there_are_named(tmp_path, value, reason):
    root = tmp_path / "photos"
    root.mkdir()
    (tmp_path / "secret.jpg").write_bytes(JPEG)
    with pytest.raises(BadSample) as raised:
        ImageLoader(root).load(value)
    assert raised.value.reason is reason


def test_a_long_path_makes_a_short_message(tmp_path):
    with pytest.raises(BadSample, match=r"cannot read image 'xxx.*File name too long") as raised:
        ImageLoader(tmp_path).load("x" * 5000)
    assert len(str(raised.value)) < 300


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch_image, "RETRY_POLICY", RetryPolicy(attempts=2, connect=2, stall=2, pause=0.0))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "1.jpg").write_bytes(JPEG)
    with FileServer(tmp_path) as server:
        yield server


def test_a_picture_behind_a_url_is_the_same_picture(tmp_path, server):
    server.on("1.jpg", status(503), None)
    url = server.url("there/1.jpg?token=secret")
    assert ImageLoader(tmp_path, fetch=True).load([url, {"bytes": None, "path": url}]) == (
        JPEG,
        JPEG,
    )
    assert {path for path, _ in server.requests} == {"/there/1.jpg?token=secret"}
    assert len(server.requests) == 3


def test_nothing_is_fetched_unless_it_is_asked_for(tmp_path, server):
    with pytest.raises(BadSample, match=r"is a URL, and nothing is fetched unless `--fetch true`") as raised:
        ImageLoader(tmp_path).load(server.url("there/1.jpg?token=secret"))
    assert raised.value.reason is Reason.MISSING_IMAGE
    assert "secret" not in str(raised.value)
    assert server.requests == []


def test_a_url_is_fetched_within_limits(tmp_path, server, monkeypatch):
    with pytest.raises(BadSample, match=r"there/2.jpg\?\*\*\*: there is no such file") as raised:
        ImageLoader(tmp_path, fetch=True).load(server.url("there/2.jpg?token=secret"))
    assert raised.value.reason is Reason.MISSING_IMAGE
    monkeypatch.setattr(fetch_image, "MAX_BYTES", len(JPEG) - 1)
    with pytest.raises(BadSample, match=r"1.jpg has more than \d+ bytes") as raised:
        ImageLoader(tmp_path, fetch=True).load(server.url("there/1.jpg"))
    assert raised.value.reason is Reason.HUGE_IMAGE
