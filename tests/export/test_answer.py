"""`rlaifv answer`: what is printed is what the model says."""

from dataclasses import replace

import pytest

from rlaifv_pl.cli.commands import main
from rlaifv_pl.feedback.engines.best_of import BestOfN
from rlaifv_pl.feedback.engines.engine import Sampling
from rlaifv_pl.feedback.engines.transformers_engine import TransformersEngine
from rlaifv_pl.miniature import packaged_model
from rlaifv_pl.miniature.shards import Scenes
from tests.export.runs import save_run

BASE = str(packaged_model("base"))
GREEDY = Sampling(n=1, temperature=0.0, max_new_tokens=30)
ASK = ["describe the picture.", "--image", "scene.png", "--max_new_tokens", "30"]


@pytest.fixture
def scene(tmp_path, monkeypatch):
    """A sample whose picture lies in the current directory."""
    monkeypatch.chdir(tmp_path)
    (sample,) = Scenes(out="", split="tune", count=1, seed=3).samples()
    (tmp_path / "scene.png").write_bytes(sample.images[0])
    return replace(sample, prompt=ASK[0])


def greedy(path, scene) -> str:
    return TransformersEngine(path=str(path)).sample([scene], [[0]], GREEDY)[0][0].text


def test_a_model_answers(scene, capsys):
    main(["answer", BASE, *ASK])
    assert capsys.readouterr().out.strip() == greedy(BASE, scene)


def test_a_run_answers_as_its_export_does(scene, tmp_path, capsys):
    run = save_run(tmp_path / "run", BASE, by=0.05)
    main(["export", str(run), "model"])
    capsys.readouterr()
    main(["answer", str(run), *ASK])
    assert capsys.readouterr().out.strip() == greedy("model", scene) != greedy(BASE, scene)


def test_the_best_of_several_comes_first_and_all_are_shown(scene, tmp_path, capsys):
    main(["export", str(save_run(tmp_path / "run", BASE, by=0.02)), "model"])
    capsys.readouterr()
    main(["answer", "model", *ASK, "--best_of", "3", "--reference", BASE, "--seed", "5"])
    said = capsys.readouterr()
    best = BestOfN(aligned="model", reference=BASE, n=3, seed=5)
    (ranked,) = best.rank([replace(scene, key="asked")], 30)
    assert said.out.strip() == ranked[0].text
    assert all(f"{one.ratio.mean:.3f}" in said.err for one in ranked)


def test_an_aligned_model_chooses_among_anothers_answers(scene, tmp_path, capsys):
    main(["export", str(save_run(tmp_path / "run", BASE, by=0.02)), "model"])
    capsys.readouterr()
    main(["answer", BASE, *ASK, "--best_of", "3", "--reference", BASE, "--aligned", "model"])
    best = BestOfN(aligned="model", reference=BASE, n=3, engine=TransformersEngine(path=BASE))
    (ranked,) = best.rank([replace(scene, key="asked")], 30)
    assert capsys.readouterr().out.strip() == ranked[0].text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--best_of", "3"], "give both"),
        (["--reference", BASE], "give both"),
        (["--aligned", BASE], "a greedy answer is not drawn"),
        (["--seed", "1"], "a greedy answer is not drawn"),
        (["--checkpoint", "last"], "--checkpoint is of a run"),
        (["--image", "none.png"], "none.png is no file"),
        (["--best_of", "0", "--reference", BASE], "makes no sense"),
    ],
)
def test_options_that_mean_nothing_are_refused(scene, options, message):
    with pytest.raises(SystemExit) as stopped:
        main(["answer", BASE, *ASK, *options])
    assert message in str(stopped.value)


def test_a_run_does_not_draw(scene, tmp_path):
    run = save_run(tmp_path / "run", BASE, by=0.0)
    with pytest.raises(SystemExit) as stopped:
        main(["answer", str(run), *ASK, "--best_of", "2", "--reference", BASE])
    assert "ask its model, as `rlaifv export` writes it" in str(stopped.value)
