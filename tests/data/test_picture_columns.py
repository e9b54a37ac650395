"""Images stand in columns of many names: what has one meaning is read, and the rest is told of."""

import base64
import json
import re
import shlex

import pytest

from rlaifv_pl.cli.commands import main
from rlaifv_pl.cli.shards import import_
from rlaifv_pl.data.importers.image_columns import likely_columns, sure_columns
from rlaifv_pl.data.manifest import read_manifest
from rlaifv_pl.data.shards import load_shards
from tests.data.samples import check_streaming, picture
from tests.data.test_commands import table_value

JPEG = picture()
PAIR = {"prompt": "What is it?", "chosen": "A red square.", "rejected": "A blue dog."}
PATH_NAMES = (
    "image", "images", "img", "imgs", "image_path", "image_paths", "img_path", "image_file", "image_filename",
    "imagePath", "Image", "picture", "pictures", "photo", "photo_path", "pic", "image_url", "img_url", "file_name",
    "filename", "file", "filepath", "file_path", "path", "url", "image_name", "img_name", "image_file_name",
    "image_src", "image-path", "jpg",
)  # fmt: skip
IN_BASE64 = base64.b64encode(JPEG).decode()


def import_rows(folder, *rows, **options):
    """The samples of some rows beside an image."""
    (folder / "a.jpg").write_bytes(JPEG)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    import_(str(folder / "rows.jsonl"), str(folder / "out"), **options)
    shards = load_shards(folder / "out")
    return [shards[number] for number in range(len(shards))]


@pytest.mark.parametrize(
    "name",
    PATH_NAMES,
)
def test_a_path_is_read_under_any_usual_name(tmp_path, capsys, name):
    (sample,) = import_rows(tmp_path, PAIR | {name: "a.jpg"})
    printed = capsys.readouterr()
    assert sample.images == (JPEG,) and table_value(printed.out, "samples with images") == "1 of 1"
    assert "warning" not in printed.err


@pytest.mark.parametrize("name", ["image_bytes", "image_base64", "img_b64", "bytes", "base64", "image_data"])
def test_an_encoded_image_is_read_under_any_usual_name(tmp_path, name):
    (sample,) = import_rows(tmp_path, PAIR | {name: IN_BASE64})
    assert sample.images == (JPEG,)


def test_names_that_often_mean_something_else_are_images_by_their_value_alone(tmp_path, capsys):
    row = PAIR | {"url": "https://example.org/page", "path": "docs/a.txt", "source": "coco", "image_id": 17}
    (sample,) = import_rows(tmp_path, row)
    assert sample.images == () and "none of the 1 samples has an image" in capsys.readouterr().err


def test_prompts_of_an_imagefolder_are_told_by_file_name(tmp_path):
    (sample,) = import_rows(tmp_path, {"question": "What is it?", "file_name": "a.jpg"})
    assert sample.images == (JPEG,)


@pytest.mark.parametrize(
    "other", [{"left_view": "a.jpg"}, {"scan": IN_BASE64}, {"views": ["a.jpg"]}, {"x": {"path": "a.jpg"}}]
)
def test_what_looks_like_images_and_is_not_read_is_named_with_the_option_that_reads_it(
    tmp_path, capsys, other
):
    (name,) = other
    (sample,) = import_rows(tmp_path, PAIR | other)
    said = capsys.readouterr().err
    assert sample.images == () and name in said and f"--keys image={name}" in said
    (sample,) = import_rows(tmp_path, PAIR | other, keys=f"image={name}", overwrite=True)
    assert sample.images == (JPEG,) and "warning" not in capsys.readouterr().err


def test_a_path_beside_an_embedded_image_is_no_second_image(tmp_path, capsys):
    (sample,) = import_rows(
        tmp_path, PAIR | {"image": IN_BASE64, "image_path": "a.jpg", "url": "https://h/a.jpg"}
    )
    assert sample.images == (JPEG,) and "warning" not in capsys.readouterr().err
    import_rows(tmp_path, PAIR | {"image": "a.jpg", "picture": "b.jpg"}, overwrite=True)
    assert "'picture'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("columns", "left"),
    [
        ({"image": "b.jpg", "images": ["a.jpg"]}, ["image"]),
        ({"image": "b", "images": ["a.jpg"]}, ["image"]),
        ({"image": "b.jpg", "images": ["a.jpg", "c.jpg"]}, ["image"]),
        ({"image": "views/c.jpg", "images": ["a.jpg", "c.jpg"]}, []),
        ({"images": [IN_BASE64, IN_BASE64], "image_path": "b.jpg"}, ["image_path"]),
        ({"img": "a.jpg", "file_name": "a.jpg", "url": "https://h/a.jpg"}, []),
        ({"file_name": "a.jpg", "width": 40}, ["width"]),
        ({"file_name": "a.jpg", "photo": "", "scan": "b.jpg"}, ["scan"]),
    ],
)
def test_columns_of_images_are_read_or_listed(tmp_path, capsys, columns, left):
    (tmp_path / "c.jpg").write_bytes(JPEG)
    import_rows(tmp_path, PAIR | columns)
    notes, said = read_manifest(tmp_path / "out").notes, capsys.readouterr().err
    assert [*notes.get("columns_not_read", {})] == left
    assert [name for name in left if f"'{name}'" in said] == [name for name in left if name != "width"]


def test_images_of_a_column_are_no_near_miss_of_another_name(tmp_path):
    (sample,) = import_rows(tmp_path, PAIR | {"img_path": "a.jpg", "Images": ""})
    assert sample.images == (JPEG,)


def test_a_row_of_lists_in_lists_is_dropped_whatever_tells_its_format(tmp_path):
    deep = "x"
    for _ in range(600):
        deep = [deep]
    asked = {"question": "What is it?"}
    samples = import_rows(
        tmp_path, asked | {"image": "a.jpg"}, asked | {"image": deep}, asked | {"url": deep}
    )
    assert len(samples) == 2 and read_manifest(tmp_path / "out").drops == {"invalid_json": 1}


def test_an_import_tells_how_many_samples_have_images(tmp_path, capsys):
    rows = [PAIR | {"image": value} for value in ("a.jpg", "", None, "nan")]
    samples = import_rows(tmp_path, *rows)
    printed = capsys.readouterr()
    assert [len(sample.images) for sample in samples] == [1, 0, 0, 0]
    assert table_value(printed.out, "samples with images") == "1 of 4"
    assert "3 of the 4 samples have no image" in printed.err


def test_a_marker_without_its_image_is_named(tmp_path, capsys):
    row = {"messages": [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "A cat."}]}
    import_rows(tmp_path, row | {"image": "None"}, PAIR)
    assert "image_count" in capsys.readouterr().err


def test_the_order_of_names_is_that_of_what_they_mean():
    columns = {"url": "x.jpg", "photo": "b", "image_path": "c", "images": ["d"], "image": "", "size": 3}
    assert sure_columns(columns) == ["images", "image_path", "photo"]
    assert likely_columns(columns) == ["url"]


def test_absolute_paths_are_refused_with_the_one_command_that_works(tmp_path, capsys, monkeypatch):
    """Also where other rows have relative ones: the printed command reads both."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "far off").mkdir()
    (tmp_path / "far off" / "b.jpg").write_bytes(JPEG)
    (tmp_path / "rows").mkdir()
    rows = [PAIR | {"image": "a.jpg"}, PAIR | {"image": str(tmp_path / "far off" / "b.jpg")}]
    import_rows(tmp_path / "rows", *rows, samples_per_shard=7)
    said = capsys.readouterr().err
    assert "outside of images_root" in said
    command = shlex.split(re.search(r"^ +(rlaifv shards import .*)$", said, re.MULTILINE)[1])
    main(command[1:])
    printed = capsys.readouterr()
    assert table_value(printed.out, "samples with images") == "2 of 2" and "--images_root" not in printed.err
    manifest = load_shards(tmp_path / "rows" / "out").manifests[0]
    assert manifest.recipe["samples_per_shard"] == 7 and "overwrite" not in manifest.recipe


def test_webdataset_streams_an_import_with_its_images(tmp_path):
    """Three prompts to an image, two images a row, and images of the rejected side."""
    turns = [{"role": "user", "content": "<image><image>?"}, {"role": "assistant", "content": "A cat."}]
    several = {"messages": turns, "images": ["a.jpg", "a.jpg"], "rejected_images": ["a.jpg", "a.jpg"]}
    import_rows(tmp_path, *[several] * 3)
    assert check_streaming(tmp_path / "out") == 12
    import_rows(tmp_path, *[PAIR | {"image": "a.jpg"}] * 6, overwrite=True)
    assert check_streaming(tmp_path / "out") == 6
