"""The verbs on real photos from end to end, and what they say about shards that are not in order."""

import json
import os
import re

import pytest
from PIL import Image

from rlaifv_pl.cli.shards import import_, show, verify
from rlaifv_pl.data.contact_sheet import COLUMNS, wrap
from rlaifv_pl.data.manifest import ManifestError, hash_file
from rlaifv_pl.data.schema import check_sample
from rlaifv_pl.data.shards import ShardWriter, load_shards
from rlaifv_pl.records import Sample
from tests import coco
from tests.data.samples import pair, picture


def write(directory, samples, **options):
    with ShardWriter(directory, recipe={}, **options) as writer:
        for sample in samples:
            writer.write(sample)
    return str(directory)


def table_value(printed, name):
    """The cell beside a name in a printed table."""
    return re.search(rf"{re.escape(name)}\s*\u2502\s*(.*?)\s*\u2502", printed)[1]


@pytest.mark.parametrize("write_source", [coco.write_trl, coco.write_rlaifv, coco.write_llava])
def test_photos_pass_from_source_to_sheet(tmp_path, capsys, write_source):
    """Import, verify, show and read back: 128 photos, as many samples, each with its own bytes and texts."""
    out, sheet = str(tmp_path / "shards"), tmp_path / "sheet.png"
    is_sft = write_source is coco.write_llava
    import_([str(write_source(tmp_path))], out, images_root=str(coco.ROOT) if is_sft else None)
    verify([out])
    show([out], out=str(sheet), count=8)
    printed = capsys.readouterr().out
    assert table_value(printed, "of kind sft" if is_sft else "of kind preference") == "128"
    assert "bad:" not in printed and "dropped:" not in printed
    assert sheet.stat().st_size > 100_000
    shards, photos = load_shards(out), coco.photos()
    assert len(shards) == len(photos) == 128
    for index, photo in enumerate(photos):
        sample = shards[index]
        assert (sample.prompt, sample.images) == (coco.PROMPT, (photo.data,))
        answers = (sample.completion,) if is_sft else (sample.chosen, sample.rejected)
        assert answers == ((photo.chosen,) if is_sft else (photo.chosen, photo.rejected))


def test_corrections_of_photos_pass_through_shards(tmp_path, capsys):
    samples = coco.nsft_samples()
    out = write(tmp_path / "shards", samples, samples_per_shard=50)
    verify([out])
    shards = load_shards(out)
    assert shards.lengths == [50, 50, 28]
    assert [shards[index] for index in range(128)] == samples
    for index in range(128):
        check_sample(shards[index], shards.where(index))
    show([out], out=str(tmp_path / "sheet.png"), count=2)
    assert table_value(capsys.readouterr().out, "of kind nsft") == "128"


def test_show_counts_words_and_names_the_longer_side(tmp_path, capsys):
    """Chosen has 1, 2, 3 and 10 words, rejected always 2: mean 4, median 2.5; longer in 2 of 4."""
    samples = [
        pair(f"k{words}", chosen="yes " * words, rejected="no no", images=(picture(),) * (words == 1))
        for words in (1, 2, 3, 10)
    ]
    show([write(tmp_path / "shards", samples)], out=str(tmp_path / "sheet.png"))
    printed = capsys.readouterr().out
    assert table_value(printed, "words of chosen") == "mean 4.0, p50 2, p95 9"
    assert table_value(printed, "words of rejected") == "mean 2.0, p50 2, p95 2"
    assert table_value(printed, "longer side") == "chosen 50%, rejected 25%, equal 25%"
    assert table_value(printed, "with images") == "0: 3, 1: 1"


def test_an_import_tells_what_is_shared_and_which_side_is_longer(tmp_path, capsys):
    """Chosen has 3, 1 and 2 words, rejected 1, 1 and 4: longer once each. Of four images three are links."""
    (tmp_path / "1.jpg").write_bytes(picture())
    texts = [("a b c", "a"), ("b", "c"), ("a b", "a b c d")]
    rows = [{"prompt": "What?", "chosen": good, "rejected": bad, "image": "1.jpg"} for good, bad in texts]
    rows.append({"prompt": "What?", "chosen": "a", "rejected": "a", "image": "1.jpg"})
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    import_([str(tmp_path / "rows.json")], str(tmp_path / "out"), link_duplicate_images=True)
    printed = capsys.readouterr().out
    assert table_value(printed, "images shared") == "2, 0.0 MB saved"
    assert table_value(printed, "longer side") == "chosen 33%, equal 33%, rejected 33%"
    assert table_value(printed, "words") == "chosen 2.0, rejected 2.0"
    assert table_value(printed, "dropped: equal_answers") == "1"
    import_([str(tmp_path / "rows.json")], str(tmp_path / "whole"))
    assert "shared" not in capsys.readouterr().out


def test_verify_tells_what_is_shared(tmp_path, capsys):
    """Four samples of one image in shards of three: two links, and a copy in the second shard."""
    samples = [pair(f"k{number}") for number in range(4)]
    verify([write(tmp_path / "shards", samples, samples_per_shard=3, link_duplicate_images=True)])
    printed = capsys.readouterr().out
    assert table_value(printed, "images shared") == "2"
    assert table_value(printed, "bytes saved by it") == str(2 * len(picture()))
    verify([write(tmp_path / "whole", samples)])
    assert "shared" not in capsys.readouterr().out


def test_show_tells_of_samples_that_lack_a_side(tmp_path, capsys):
    """They are no fault of the tar's, and one who looks for them must see them."""
    path = write(tmp_path / "shards", [pair("a", chosen="yes"), pair("b", chosen="yes")])
    tar = tmp_path / "shards" / "shard-000000.tar"
    tar.write_bytes(tar.read_bytes().replace(b'"rejected"', b'"rejecteX"', 1))
    show([path], out=str(tmp_path / "sheet.png"))
    assert table_value(capsys.readouterr().out, "longer side") == "chosen 0%, rejected 100%, equal 0%"


def test_show_reports_what_was_dropped(tmp_path, capsys):
    with ShardWriter(tmp_path / "shards", recipe={}) as writer:
        writer.write(pair())
        writer.drop("empty_answer", 3)
    show([str(tmp_path / "shards")], out=str(tmp_path / "sheet.png"))
    assert table_value(capsys.readouterr().out, "dropped: empty_answer") == "3"


def test_a_sheet_depends_on_its_seed_alone(tmp_path):
    out = write(tmp_path / "shards", [pair(f"k{i}", images=(picture(colour=i * 12),)) for i in range(20)])
    sheets = [tmp_path / f"{number}.png" for number in range(3)]
    for sheet, seed in zip(sheets, (0, 0, 1), strict=True):
        show([out], out=str(sheet), count=3, seed=seed)
    assert hash_file(sheets[0]) == hash_file(sheets[1]) != hash_file(sheets[2])


def test_a_sheet_is_a_grid_that_holds_any_kind_of_sample(tmp_path):
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "word " * 500}]}]
    samples = [
        pair("a", rejected_images=(picture(),)),
        Sample(key="b", prompt=turns, images=(picture(),), completion="x" * 1000),
        Sample(key="c", prompt="\u6f22\u5b57\u0000\u200f?"),
        *coco_like(COLUMNS),
    ]
    show([write(tmp_path / "shards", samples)], out=str(tmp_path / "sheet.png"))
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 22 + COLUMNS * (380 + 22)


def coco_like(number):
    return [pair(f"d{index}") for index in range(number)]


class EightPixelFont:
    """A font whose every character is 8 pixels wide."""

    def getlength(self, text):
        return 8 * len(text)


def test_text_wraps_at_spaces_and_ends_in_an_ellipsis():
    font = EightPixelFont()
    assert wrap("one two three", font, 8 * 7) == ["one two", "three"]
    assert wrap("abcdefghij", font, 8 * 7) == ["abcd..."]
    assert wrap("one two three four", font, 8 * 9, max_lines=1) == ["one tw..."]


def test_a_long_word_is_cut_in_few_steps():
    class Counting(EightPixelFont):
        asked = 0

        def getlength(self, text):
            self.asked += 1
            return super().getlength(text)

    font = Counting()
    assert wrap("x" * 100_000, font, 8 * 7) == ["xxxx..."]
    assert font.asked < 50


def test_empty_shards_say_that_there_is_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="the shards are empty"):
        show([write(tmp_path / "shards", [])], out=str(tmp_path / "sheet.png"))


def test_verify_names_each_bad_sample(tmp_path, capsys):
    """The images are only decoded here: a cut one passes the writer."""
    samples = [pair("good"), pair("cut", images=(picture()[:-200],)), pair("also-good")]
    out = write(tmp_path / "shards", samples)
    with pytest.raises(SystemExit, match=r"faults in .*: undecodable_image 1$"):
        verify([out])
    printed = capsys.readouterr().out
    assert "shard-000000.tar, sample 'cut', images[0]: cannot decode" in printed
    assert table_value(printed, "bad: undecodable_image") == "1"


def test_verify_notices_a_changed_byte(tmp_path, capsys):
    """The text of one answer is edited in place: tar, sizes and JSON stay sound."""
    out = write(tmp_path / "shards", [pair()])
    path = tmp_path / "shards" / "shard-000000.tar"
    path.write_bytes(path.read_bytes().replace(b"Two cats.", b"Ten cats."))
    with pytest.raises(SystemExit, match="changed_shard"):
        verify([out])
    assert "the manifest says" in capsys.readouterr().out


def test_verify_goes_on_after_a_damaged_shard(tmp_path, capsys):
    samples = [pair("a"), pair("b", images=(picture()[:-200],))]
    out = write(tmp_path / "shards", samples, samples_per_shard=1)
    path = tmp_path / "shards" / "shard-000000.tar"
    size = path.stat().st_size
    os.truncate(path, 1000)
    os.truncate(path, size)  # Zeros where the second member was pass for an end mark.
    with pytest.raises(SystemExit, match="changed_shard 1, missing_json 1, undecodable_image 1"):
        verify([out])
    assert "shard-000001.tar, sample 'b', images[0]" in capsys.readouterr().out


def test_verify_refuses_unfinished_shards(tmp_path):
    out = write(tmp_path / "shards", [pair()])
    (tmp_path / "shards" / "manifest.json").unlink()
    with pytest.raises(ManifestError, match="unfinished"):
        verify([out])


def test_import_prints_what_it_kept_and_dropped(tmp_path, capsys):
    rows = [
        {"prompt": "A?", "chosen": "b", "rejected": "c"},
        {"prompt": "A?", "chosen": "b", "rejected": "b"},
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    import_([str(tmp_path / "rows.json")], str(tmp_path / "out"))
    printed = capsys.readouterr().out
    assert table_value(printed, "preference") == "1"
    assert table_value(printed, "dropped: equal_answers") == "1"
