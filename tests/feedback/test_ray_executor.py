"""Parts by actors of a Ray cluster, which is this machine: the same files as one process leaves, whatever dies."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from rlaifv_pl.cli import commands
from rlaifv_pl.cli.feedback import choose_executor
from rlaifv_pl.data.atomic import WriteError
from rlaifv_pl.feedback.chunks import Chunks, RankShare
from rlaifv_pl.feedback.engines.engine import EngineError
from rlaifv_pl.feedback.pipeline import FeedbackPipeline
from rlaifv_pl.feedback.ray_executor import RayExecutor, RayWorker
from rlaifv_pl.miniature.shards import Scenes
from tests.feedback.scripted import real_run, world_feedback, world_policy
from tests.feedback.squares import as_they_are, killed_once, refused, squares
from tests.training.tiny import REPOSITORY, environment

ONE = RayExecutor(gpus_per_actor=0)
FOREIGN_CLUSTER = "127.0.0.1:9"
"""A cluster that somebody else's environment names, and that nobody here may join."""


class SeesWhatTestsSee(RayExecutor):
    """Actors that import the tests first, and with them the packages that the tests have."""

    def make(self, parts, rows):
        yield from super().make(parts, partial(as_they_are, rows))


@pytest.fixture(scope="module")
def ray():
    """Ray on this machine."""
    if find_spec("ray") is None:
        pytest.skip("the ray package is not installed")
    before = set(os.environ)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", FOREIGN_CLUSTER)
        # Workers look for modules where Ray's processes do, not where this one does.
        patch.setenv("PYTHONPATH", str(REPOSITORY), prepend=os.pathsep)
        ray = ONE._connect(num_cpus=2)
        yield ray
        ray.shutdown()
    for name in os.environ.keys() - before:
        del os.environ[name]


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def parts(root: Path) -> Chunks:
    return Chunks(root, "square", {}, 10, 2)


@pytest.mark.slow
def test_models_in_an_actor_leave_what_one_process_leaves(ray, tmp_path):
    """The actor finds half of the candidates, and the claims, which are another's work."""
    prompts = Scenes(out=str(tmp_path / "prompts"), split="tune", count=6, seed=3).ensure()
    feedback = world_feedback("")
    feedback.gate = None
    real_run(tmp_path / "one", prompts, world_policy(), feedback).make()
    shutil.copytree(tmp_path / "one", tmp_path / "ray")
    missing = [
        *(tmp_path / "ray").glob("stages/conquer-*/*"),
        *(tmp_path / "ray").glob("stages/generate-*/*1.jsonl"),
    ]
    assert len(missing) == 4
    for path in [*missing, *(tmp_path / "ray").glob("*.*")]:
        path.unlink()
    policy = world_policy()
    real_run(tmp_path / "ray", prompts, policy, feedback, executor=SeesWhatTestsSee(gpus_per_actor=0)).make()
    assert files(tmp_path / "ray") == files(tmp_path / "one")
    assert "live" not in vars(policy), "the driver loaded a model"


@pytest.mark.slow
def test_a_part_whose_actor_is_killed_is_made_by_another(ray, tmp_path, monkeypatch):
    """Paths are the command's, wherever Ray started."""
    monkeypatch.chdir(tmp_path)
    note = Path("note")
    found = list(RayExecutor(actors=2, gpus_per_actor=0).make(parts(Path("ray")), partial(killed_once, note)))
    assert found == [2] * 5 and note.read_text().isdigit()
    list(RankShare().make(parts(tmp_path / "one"), squares))
    assert files(tmp_path / "ray") == files(tmp_path / "one")


def test_a_ray_of_its_own_is_closed_to_others_and_reports_nothing(ray):
    """Without the token that was drawn, Ray refuses to connect."""
    if "RAY_AUTH_MODE" not in os.environ:
        pytest.skip("another test imported ray before a token could be drawn")
    assert os.environ["RAY_AUTH_MODE"] == "token" and len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_a_ray_of_its_own_joins_no_cluster_that_the_environment_names(ray, tmp_path):
    assert os.environ["RAY_ADDRESS"] == FOREIGN_CLUSTER
    assert ray.get_runtime_context().gcs_address != FOREIGN_CLUSTER and ray.cluster_resources()["CPU"] == 2
    assert list(ONE.make(parts(tmp_path), squares)) == [2] * 5


@pytest.mark.parametrize("address, joined", [(None, "local"), ("auto", "auto"), ("h:1", "h:1")])
def test_the_cluster_is_the_one_that_is_named_and_is_told(monkeypatch, capsys, address, joined):
    ray = pytest.importorskip("ray")
    asked = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda given, **_: asked.append(given))
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="10.0.0.1:6379"))
    RayExecutor(address=address)._connect()
    assert asked == [joined]
    told = capsys.readouterr().err
    assert "10.0.0.1:6379" in told and ("its own" in told) == (address is None)


def test_what_goes_wrong_in_an_actor_is_told_as_it_would_be_here(ray, tmp_path):
    with pytest.raises(EngineError, match=r"^no answer about \d$"):
        list(ONE.make(parts(tmp_path), refused))


def test_an_error_that_cannot_be_sent_is_told_by_its_words(ray, tmp_path):
    """A full disk: the error is made of a path and a cause, and pickle hands it three other things."""

    def full(some: range) -> list:
        raise WriteError(tmp_path / "file", OSError(errno.ENOSPC, "No space left on device"))

    told = RayWorker(parts(tmp_path), full, Path.cwd())({"number": [3]})
    with pytest.raises(
        EngineError, match=r"^WriteError: .*cannot be written: No space left.*Make room there"
    ):
        raise ray.cloudpickle.loads(told["fault"][0])


def test_more_than_the_cluster_has_is_refused_at_once(ray, tmp_path):
    with pytest.raises(
        EngineError, match=r"4 actors of 1 CPUs need 4, and the cluster has 2\. Lower ray\.actors"
    ):
        list(RayExecutor(actors=4, gpus_per_actor=0).make(parts(tmp_path), squares))
    with pytest.raises(
        EngineError, match=r"1 actors of 8 GPUs need 8, and the cluster has 0\. .*ray\.gpus_per_actor"
    ):
        list(RayExecutor(gpus_per_actor=8).make(parts(tmp_path), squares))


@pytest.mark.slow
def test_after_the_command_is_killed_the_same_parts_go_on(ray, tmp_path):
    """The third part takes for ever, the first time: two are made when the command is killed, with its own Ray."""
    note = tmp_path / "note"
    command = [sys.executable, "-m", "tests.feedback.by_ray", str(tmp_path / "ray"), str(note)]
    nowhere = environment(RAY_ADDRESS=FOREIGN_CLUSTER, PYTHONPATH=str(REPOSITORY))
    process = subprocess.Popen(command, env=nowhere, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    while not (note.exists() and "4" in note.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    assert process.communicate()[0] == ""
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "ray").rglob("*.jsonl")}
    assert len(before) == 2
    assert list(ONE.make(parts(tmp_path / "ray"), squares)) == [2] * 5
    assert {path: path.stat().st_mtime_ns for path in before} == before
    list(RankShare().make(parts(tmp_path / "one"), squares))
    assert files(tmp_path / "ray") == files(tmp_path / "one")


def test_what_is_made_needs_no_ray(tmp_path, monkeypatch):
    list(RankShare().make(parts(tmp_path), squares))
    monkeypatch.setitem(sys.modules, "ray", None)
    assert list(ONE.make(parts(tmp_path), refused)) == [2] * 5
    with pytest.raises(EngineError, match=r'pip install "rlaifv-pl\[ray\]"'):
        list(ONE.make(Chunks(tmp_path, "other", {}, 1, 1), squares))


def test_settings_that_make_no_sense_are_refused():
    for wrong in ({"actors": 0}, {"gpus_per_actor": -1}, {"cpus_per_actor": 0}):
        with pytest.raises(ValueError, match=r"ray\.actors must be at least 1"):
            RayExecutor(**wrong)


# The verb.


def test_the_verb_says_who_makes_the_parts(monkeypatch):
    two = RayExecutor(actors=2)
    assert (
        choose_executor() == RankShare()
        and choose_executor("ray") == RayExecutor()
        and choose_executor("ray", two) is two
    )
    with pytest.raises(EngineError, match="these are options of `engine: ray`"):
        choose_executor("local", two)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert choose_executor() == RankShare(1, 3)
    with pytest.raises(EngineError, match=r"a launcher started 3 of this command.*set ray\.actors"):
        choose_executor("ray")


def test_the_verbs_options_reach_the_run(monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(FeedbackPipeline, "make", lambda run: made.append(run) or sys.exit(0))
    monkeypatch.setattr("rlaifv_pl.cli.feedback.load_shards", lambda _: [])
    options = ["--engine", "ray", "--ray.actors", "4", "--ray.address", "auto", "--ray.gpus_per_actor", "2"]
    config = [
        "--config",
        str(REPOSITORY / "configs/feedback.yaml"),
        "--prompts",
        "here",
        "--out",
        str(tmp_path),
    ]
    with pytest.raises(SystemExit):
        commands.main(["feedback", *config, *options])
    assert made[0].executor == RayExecutor(address="auto", actors=4, gpus_per_actor=2.0)
