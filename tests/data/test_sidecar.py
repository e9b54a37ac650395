"""Results beside shards: whole or not there, and never taken for another's."""

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rlaifv_pl.data.sample_lengths import LengthSurvey
from rlaifv_pl.data.shards import ShardSet, ShardWriter, load_shards
from rlaifv_pl.data.sidecar import SidecarError, Sidecars
from rlaifv_pl.data.vision_features import read_features
from tests.data.samples import pair

IDENTITY = {"weights": "abc"}
COUNT = 7  # three shards: 3, 3, 1


def write(directory: Path, first: int = 0) -> ShardSet:
    with ShardWriter(directory, recipe={"first": first}, samples_per_shard=3) as writer:
        for number in range(first, first + COUNT):
            writer.write(pair(f"k{number}"))
    return load_shards(directory)


def values(numbers: range) -> list[dict[str, torch.Tensor]]:
    """Of sample n: n numbers from n on, and n itself."""
    return [{"row": torch.arange(n, 2 * n).double(), "number": torch.tensor([n])} for n in numbers]


def fill(sidecars: Sidecars) -> None:
    for shard in sidecars.missing():
        sidecars.write(shard, values(sidecars.samples.numbers(shard)))


@pytest.fixture
def made(tmp_path: Path) -> Sidecars:
    sidecars = Sidecars(write(tmp_path / "a"), "results", IDENTITY)
    assert sidecars.missing() == [0, 1, 2]
    fill(sidecars)
    return sidecars


def test_what_was_written_is_read_sample_by_sample_and_shard_by_shard(made: Sidecars):
    again = Sidecars(load_shards(made.samples.shards[0].path.rsplit("/", 1)[0]), "results", IDENTITY)
    assert again.missing() == []
    for number, expected in enumerate(values(range(COUNT))):
        found = again.read(number)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert again.whole(1)["number"].tolist() == [3, 4, 5]
    assert again.whole(1)["row"].tolist() == [3, 4, 5, 4, 5, 6, 7, 5, 6, 7, 8, 9]


def test_several_directories_have_their_own(tmp_path: Path, made: Sidecars):
    write(tmp_path / "b", first=50)
    both = Sidecars(load_shards([tmp_path / "a", tmp_path / "b"]), "results", IDENTITY)
    assert both.missing() == [3, 4, 5]
    fill(both)
    assert both.read(COUNT)["number"].tolist() == [COUNT] and both.path(3).parent.parent == tmp_path / "b"


def test_results_of_another_identity_lie_side_by_side(made: Sidecars):
    other = Sidecars(made.samples, "results", {"weights": "xyz"})
    assert other.missing() == [0, 1, 2] and other.path(0).parent != made.path(0).parent


def test_what_is_made_anew_is_read_anew(made: Sidecars):
    assert made.read(2)["number"].tolist() == [2]
    made.write(0, values(range(10, 13)))
    assert made.read(2)["number"].tolist() == [12]


def test_a_file_of_another_shard_is_refused(made: Sidecars):
    shutil.copy(made.path(0), made.path(1))
    with pytest.raises(SidecarError, match=r"shard-000001.* another shard .*Delete it"):
        made.missing()


def test_a_file_whose_shard_was_written_anew_is_refused(tmp_path: Path, made: Sidecars):
    kept = {path.name: path.read_bytes() for path in made.path(0).parent.iterdir()}
    shutil.rmtree(tmp_path / "a")
    changed = Sidecars(write(tmp_path / "a", first=20), "results", IDENTITY)
    changed.path(0).parent.mkdir()
    for name, data in kept.items():
        (changed.path(0).parent / name).write_bytes(data)
    with pytest.raises(SidecarError, match=r"made with another shard \(" + made.samples.hashes[0][:12]):
        changed.missing()


def test_a_file_of_another_model_under_this_ones_name_is_refused(made: Sidecars):
    other = Sidecars(made.samples, "results", {"weights": "xyz"})
    made.path(0).parent.rename(other.path(0).parent)
    with pytest.raises(SidecarError, match=r"another weights \(abc instead of xyz\)"):
        other.missing()


@pytest.mark.parametrize("damage", ["cut", "foreign", "empty"])
def test_a_damaged_file_is_refused(made: Sidecars, damage: str):
    data = made.path(1).read_bytes()
    made.path(1).write_bytes({"cut": data[:-9], "foreign": json.dumps({}).encode(), "empty": b""}[damage])
    with pytest.raises(SidecarError, match=r"shard-000001.* no sidecar .*Delete it"):
        made.missing()


@pytest.mark.parametrize(
    "ends",
    [
        [0, 1, 2],
        [0, 1, 2, 3, 4],
        [1, 1, 2, 3],
        [0, 2, 1, 3],
        [0, 1, 2, 4],
        [0.0, 1.0, 2.0, 3.0],
        [[0, 1, 2, 3]],
    ],
)
def test_parts_that_cannot_be_are_refused_before_and_while_reading(made: Sidecars, ends: list):
    with safe_open(made.path(0), "pt") as file:
        head, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors | {"number.ends": torch.tensor(ends)}, made.path(0), head)
    for read in (made.missing, lambda: made.read(0), lambda: made.whole(0)):
        with pytest.raises(SidecarError, match=r"shard-000000.*the parts of number"):
            read()


def test_parts_in_a_wrong_order_are_refused(made: Sidecars):
    """The last shard has one sample: its part would go from 1 to 0."""
    with safe_open(made.path(2), "pt") as file:
        head, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors | {"number.ends": torch.tensor([1, 0])}, made.path(2), head)
    with pytest.raises(SidecarError, match="the parts of number"):
        made.missing()


def test_a_file_that_is_gone_is_named(made: Sidecars):
    made.path(0).unlink()
    for read in (lambda: made.read(0), lambda: made.whole(0)):
        with pytest.raises(SidecarError, match="shard-000000"):
            read()


def test_a_header_that_is_deep_is_refused(made: Sidecars):
    save_file({"number": torch.zeros(3)}, made.path(0), {"sidecar": "[" * 10**4})
    with pytest.raises(SidecarError, match=r"no sidecar .*nested"):
        made.missing()


def _sized(sidecars: Sidecars, **changes: torch.Tensor) -> LengthSurvey:
    survey = LengthSurvey(sidecars.samples, IDENTITY, lambda samples: None, 0)
    for shard in survey.sidecars.missing():
        one = {"tree": torch.tensor([5]), "rows": torch.tensor([6]), "prompt": torch.tensor([7])}
        survey.sidecars.write(shard, [one | changes for _ in survey.samples.numbers(shard)])
    return survey


def test_sizes_are_read_as_they_were_written(made: Sidecars):
    assert _sized(made).sizes("rows").tokens.tolist() == [6] * COUNT


@pytest.mark.parametrize(
    "value", [torch.zeros(2, dtype=torch.long), torch.zeros(1), torch.zeros(1, 1).long()]
)
def test_sizes_of_another_shape_or_type_are_refused(made: Sidecars, value: torch.Tensor):
    with pytest.raises(SidecarError, match=r"shard-000000.safetensors has no rows for each of 3 samples"):
        _sized(made, rows=value).sizes("rows")


def test_features_that_point_astray_are_refused(made: Sidecars):
    """A sample's images are kept with the first that has them, which names itself."""
    tower = Sidecars(made.samples, "tower", IDENTITY)
    tower.write(0, [{"first": torch.tensor([first])} for first in (0, 0, 5)])
    tower.write(1, [{"first": torch.tensor([first])} for first in (1, 0, 1)])
    assert read_features(tower, 1)["first"].tolist() == [0]
    for index in (2, 3, 4, 5):
        with pytest.raises(SidecarError, match="is damaged at sample"):
            read_features(tower, index)


def test_nothing_half_written_is_left(made: Sidecars):
    names = sorted(path.name for path in made.path(0).parent.iterdir())
    assert names == [f"shard-00000{number}.safetensors" for number in range(3)]


def test_a_full_disk_ends_in_a_message_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sidecars = Sidecars(write(tmp_path / "a"), "results", IDENTITY)
    sidecars.write(0, values(range(3)))

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("rlaifv_pl.data.atomic.os.fsync", full)
    with pytest.raises(
        SidecarError, match=r"shard-000001.*: No space left on device \(.* free\)\. Make room"
    ):
        sidecars.write(1, values(range(3, 6)))
    assert sidecars.missing() == [1, 2] and len(list(sidecars.path(0).parent.iterdir())) == 1


def test_shards_with_sidecars_are_verified_as_before(made: Sidecars, capsys: pytest.CaptureFixture):
    from rlaifv_pl.cli.commands import main

    main(["shards", "verify", str(made.path(0).parent.parent)])
    assert "7" in capsys.readouterr().out
