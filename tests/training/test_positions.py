"""Rows that are longer than what a model was made for."""

import json
import shutil
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from pydantic import BaseModel
from transformers import LlamaConfig

from rlaifv_pl.cli.fit import main as train
from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.sample_lengths import longest
from rlaifv_pl.data.shards import ShardWriter, load_shards
from rlaifv_pl.feedback.bad_prompts import skip_bad_prompts
from rlaifv_pl.feedback.engines.engine import Request, Sampling
from rlaifv_pl.feedback.engines.rendering import prompt_text
from rlaifv_pl.feedback.engines.transformers_engine import TransformersEngine
from rlaifv_pl.models.model_checks import max_positions
from rlaifv_pl.records import Sample
from tests.training.tiny import dpo_config, noise_pairs, write_config

POSITIONS = 128


@pytest.fixture
def model(family_dir, tmp_path: Path) -> Path:
    directory = shutil.copytree(family_dir("llava"), tmp_path / "model")
    config = json.loads((directory / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = POSITIONS
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A hundred short samples and, behind the middle, one whose rejected answer is too long."""
    samples = noise_pairs(100)
    long = Sample(key="long", prompt="what?", images=samples[0].images, chosen="a.", rejected="a cat " * 90)
    with ShardWriter(tmp_path / "shards", recipe={}, samples_per_shard=20) as writer:
        for sample in [*samples[:77], long, *samples[77:]]:
            writer.write(sample)
    return tmp_path / "shards"


def config(model: Path, shards: Path, tmp_path: Path, **data: str) -> list[str]:
    settings = dpo_config(model, shards, data=data)
    settings["trainer"] |= {"default_root_dir": str(tmp_path / "run"), "max_epochs": 1, "max_steps": 2}
    return ["fit", "--config", str(write_config(tmp_path / "config.yaml", settings))]


def test_the_longest_texts_are_found_without_reading_them(shards: Path):
    samples = load_shards([str(shards)])
    (first,) = longest(samples, 1)
    assert samples[first].key == "long"
    sizes = [len(samples[number].rejected) + len(samples[number].chosen) for number in longest(samples)]
    assert max(sizes[20:]) < sizes[0]


def test_a_run_ends_before_its_first_step(model: Path, shards: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(
        "rlaifv_pl.objectives.base.AlignmentModule.training_step", lambda *_: pytest.fail("trained")
    )
    with pytest.raises(BadSample, match=rf"sample long.*{POSITIONS} positions.*max_position_embeddings"):
        train(config(model, shards, tmp_path))


def test_it_can_be_left_out(model: Path, shards: Path, tmp_path: Path):
    train(config(model, shards, tmp_path, on_bad_sample="skip"))
    assert (tmp_path / "run" / "export" / "config.json").is_file()


def test_an_answer_beyond_the_positions_is_named(model: Path, shards: Path, capsys: pytest.CaptureFixture):
    engine = TransformersEngine(path=str(model), batch_size=2)
    samples = [load_shards([str(shards)])[number] for number in (0, 1)]
    few = Sampling(n=1, max_new_tokens=8)
    engine.sample(samples, [[0], [0]], few)
    assert "positions" not in capsys.readouterr().err
    # Shorter than the positions by fewer tokens than are written behind it.
    words = room(engine, samples[1]) - 2
    for _ in range(2):
        engine.sample([samples[0], worded(samples[1], words)], [[0], [0]], few)
    warned = capsys.readouterr().err
    assert warned.count(f"{POSITIONS} positions") == 1
    assert f"sample {samples[1].key}" in warned and "max_new_tokens" in warned


def room(engine: TransformersEngine, sample: Sample) -> int:
    """Words that a prompt about the sample's images may have within the positions."""
    chat, images = engine.live.chat, [Image.open(BytesIO(data)) for data in sample.images]
    words = 0
    while (
        chat.prompt_tensors([prompt_text(chat, worded(sample, words + 1))], [images])["input_ids"].shape[1]
        <= POSITIONS
    ):
        words += 1
    return words


def worded(sample: Sample, words: int) -> Sample:
    return replace(sample, prompt="a " * words + "?")


def test_a_prompt_beyond_the_positions_is_left_out_by_name(model: Path, shards: Path):
    engine = TransformersEngine(path=str(model), batch_size=2)
    first, second, third = (load_shards([str(shards)])[number] for number in (0, 1, 2))
    most = room(engine, second)
    few = Sampling(n=1, max_new_tokens=1)
    engine.sample([worded(second, most)], [[0]], few)
    samples = [first, worded(second, most + 1), third]

    def answers(numbers):
        return engine.sample([samples[number] for number in numbers], [[0]] * len(numbers), few)

    found = skip_bad_prompts(samples, answers)
    assert [found[0], found[2]] == engine.sample([first, third], [[0], [0]], few)
    assert found[1].reason == Reason.TOO_LONG and found[1].where == f"sample {second.key}"


def test_a_question_beyond_the_positions_is_named(model: Path, shards: Path):
    engine = TransformersEngine(path=str(model), batch_size=8)
    sample = load_shards([str(shards)])[0]
    asked = [
        Request(f"Is there a {'very ' * n}small cat?", sample.images, "sample it") for n in (1, 2, POSITIONS)
    ]
    assert len(engine.choose(asked[:2], ("yes", "no"))) == 2
    with pytest.raises(BadSample, match=f"sample it.*{POSITIONS} positions") as refused:
        engine.choose(asked, ("yes", "no"))
    assert refused.value.reason == Reason.TOO_LONG
    assert engine.fill([replace(asked[2], seed=1)], Form) == [None]


class Form(BaseModel):
    name: str


def test_scaled_positions_reach_further():
    rope = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
    assert max_positions(LlamaConfig(max_position_embeddings=100)) == 100
    assert max_positions(LlamaConfig(max_position_embeddings=100, rope_parameters=rope)) == 400
    yarn = rope | {"rope_type": "yarn", "original_max_position_embeddings": 25}
    assert max_positions(LlamaConfig(max_position_embeddings=100, rope_parameters=yarn)) == 100
