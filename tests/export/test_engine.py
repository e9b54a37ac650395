"""A checkpoint answers as the model does that is exported of it."""

import pytest
import torch

from rlaifv_pl.cli.commands import main
from rlaifv_pl.cli.export import export
from rlaifv_pl.evaluation.pope import PopeBenchmark, PopeQuestion
from rlaifv_pl.evaluation.responder import Responder, answer_benchmark
from rlaifv_pl.export.checkpoint_engine import CheckpointEngine
from rlaifv_pl.feedback.engines.engine import EngineError, Request, Sampling
from rlaifv_pl.feedback.engines.transformers_engine import TransformersEngine
from rlaifv_pl.miniature import packaged_model
from rlaifv_pl.miniature.shards import Scenes
from rlaifv_pl.models.policy import LoRA
from rlaifv_pl.objectives.checks import RunError
from tests.export.runs import save_run

GREEDY = Sampling(n=1, temperature=0.0, max_new_tokens=40)


@pytest.fixture(scope="module")
def prompts():
    return list(Scenes(out="", split="tune", count=4, seed=3).samples())


def said(engine, prompts) -> list[list[str]]:
    return engine.sample(prompts, [[0]] * len(prompts), GREEDY)


@pytest.mark.parametrize("lora", [None, LoRA(rank=4)], ids=["weights", "adapters"])
def test_a_checkpoint_says_what_its_export_says(lora, prompts, tmp_path):
    run = save_run(tmp_path / "run", str(packaged_model("base")), lora, by=0.05)
    engine = CheckpointEngine(run=str(run))
    export(str(run), str(tmp_path / "model"))
    exported, base = (
        TransformersEngine(path=str(path)) for path in (tmp_path / "model", packaged_model("base"))
    )
    assert said(engine, prompts) == said(exported, prompts) != said(base, prompts)
    asked = [Request("is there a red circle?", prompts[0].images)]
    (ours,), (theirs,) = (each.choose(asked, ("yes", "no")) for each in (engine, exported))
    assert ours == pytest.approx(theirs, abs=1e-5)


def test_identity_is_that_of_the_weights(tmp_path):
    one, same, other = (
        CheckpointEngine(run=str(save_run(tmp_path / name, str(packaged_model("base")), by=by)))
        for name, by in (("one", 0.01), ("same", 0.01), ("other", 0.02))
    )
    assert one.identity == same.identity != other.identity


def test_last_stays_what_it_was_when_the_run_goes_on(prompts, tmp_path):
    run = save_run(tmp_path / "run", str(packaged_model("base")), by=0.01)
    engine = CheckpointEngine(run=str(run))
    before, identity = said(engine, prompts), engine.identity
    save_run(run, str(packaged_model("base")), by=0.5, step=2)
    engine.release()
    assert said(engine, prompts) == before and engine.identity == identity
    assert CheckpointEngine(run=str(run)).identity != identity


def test_weights_that_change_under_an_engine_stop_it(prompts, tmp_path):
    run = save_run(tmp_path / "run", str(packaged_model("base")), by=0.01)
    engine = CheckpointEngine(run=str(run))
    said(engine, prompts)
    engine.release()
    save_run(run, str(packaged_model("base")), by=0.5)
    with pytest.raises(EngineError, match="other weights than when it was first read"):
        said(engine, prompts)


def test_a_checkpoint_that_is_not_there_is_named_with_those_that_are(tmp_path):
    run = save_run(tmp_path / "run", str(packaged_model("base")), by=0.01)
    with pytest.raises(RunError, match=r"best.ckpt is missing: .* one of \['epoch0-step1', 'last'\]"):
        CheckpointEngine(run=str(run), checkpoint="best").identity  # noqa: B018
    with pytest.raises(RunError, match=r"expected the directory of a run"):
        CheckpointEngine(run=str(tmp_path / "none")).identity  # noqa: B018


def test_parts_of_another_checkpoint_are_not_taken(tmp_path, prompts):
    """Responses go on only if the weights are the same."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").write_bytes(prompts[0].images[0])
    benchmark = PopeBenchmark([PopeQuestion(question_id=0, image="0.png", text="describe", label="yes")])
    for number, by in enumerate((0.0, 0.0, 0.5)):
        run = save_run(tmp_path / f"run{number}", str(packaged_model("base")), by=by)
        responder = Responder(
            images=str(tmp_path / "images"), engine=CheckpointEngine(run=str(run)), max_new_tokens=20
        )
        answer_benchmark(benchmark, responder, tmp_path / "answers.jsonl")
    parts = list((tmp_path / "answers.jsonl.parts").iterdir())
    assert len(parts) == 2, "one of equal weights, one of others"


def test_the_command_line_answers_with_a_checkpoint(tmp_path, prompts, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_run(tmp_path / "run", str(packaged_model("base")), by=0.0)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").write_bytes(prompts[0].images[0])
    question = PopeQuestion(question_id=0, image="0.png", text="describe the picture.", label="yes")
    PopeBenchmark([question]).save(tmp_path / "questions.json")
    options = (
        "--model.engine rlaifv_pl.export.checkpoint_engine.CheckpointEngine"
        " --model.engine.run run --model.images images"
    )
    torch.manual_seed(0)
    main(
        f"respond --metric pope --ground_truth questions.json --out answers.jsonl {options} "
        "--model.max_new_tokens 20".split()
    )
    assert '"answer": "' in (tmp_path / "answers.jsonl").read_text()
