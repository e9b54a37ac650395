"""The codebook: the shipped list holds, another file is checked entry by entry."""

from typing import get_args

import pytest

from rlaifv_pl.feedback.corrections.codebook import Codebook, CodebookError, Level
from rlaifv_pl.feedback.corrections.diagnosis import ABSENT, COLOR, COUNT, MISSED

ENTRY = {"id": "count", "level": "instance", "description": "A wrong number.", "example": "Two, not three."}


def yaml(*entries: dict) -> str:
    return "".join(
        f"- {{{', '.join(f'{name}: {value!r}' for name, value in entry.items())}}}\n" for entry in entries
    )


def test_the_shipped_codebook_holds_what_rules_and_models_need():
    codebook = Codebook.load()
    assert len(codebook.types) == 19
    assert {ABSENT, MISSED, COLOR, COUNT} <= codebook.by_id.keys()
    assert {one.level for one in codebook.types} == set(get_args(Level))
    assert [one.id for one in codebook.types if one.omission] == [MISSED]


def test_its_text_has_a_line_for_each_type_below_its_level():
    lines = Codebook.load().text().splitlines()
    assert lines[0] == "Level instance:" and lines[13] == "Level image:" and len(lines) == 19 + 2
    assert lines[8].startswith("- count: ")


def test_the_hash_is_of_the_contents_and_not_of_the_file(tmp_path):
    plain, commented, other = tmp_path / "a.yaml", tmp_path / "b.yaml", tmp_path / "c.yaml"
    plain.write_text(yaml(ENTRY))
    commented.write_text("# Ours.\n\n" + yaml(ENTRY))
    other.write_text(yaml(ENTRY | {"example": "Six, not five."}))
    one, same, another = (Codebook.load(path).hash for path in (plain, commented, other))
    assert one == same != another


@pytest.mark.parametrize(
    "text, message",
    [
        (yaml(ENTRY, ENTRY), "entry 2: the id 'count'"),
        (yaml({key: value for key, value in ENTRY.items() if key != "example"}), "entry 1 .*example"),
        (yaml(ENTRY | {"severity": 3}), "entry 1 .*severity"),
        (yaml(ENTRY | {"level": "region"}), "entry 1 .*level: .*'instance' or 'image'"),
        (yaml(ENTRY | {"description": " "}), "entry 1 .*description"),
        (yaml(ENTRY | {"id": 7}), "entry 1 .*id: .*string"),
        (yaml(ENTRY | {"omission": "perhaps"}), "entry 1 .*omission: .*boolean"),
        ("- count\n", "entry 1 "),
        ("id: count\n", "holds no list"),
        ("[]\n", "holds no list"),
        ("- {id: [\n", "cannot be read as YAML"),
    ],
)
def test_a_faulty_file_is_refused_with_entry_and_remedy(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(CodebookError, match=message) as caught:
        Codebook.load(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CodebookError, match=r"nowhere\.yaml cannot be read"):
        Codebook.load(tmp_path / "nowhere.yaml")
