"""Model directories as they lie about on disks: each fault ends in one sentence that names it."""

import json
import os
import pickle
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor

from rlaifv_pl.models import hub_access
from rlaifv_pl.models.chat import Chat, message_with_images
from rlaifv_pl.models.policy import PolicyError, PolicySpec, load_model, load_processor
from rlaifv_pl.models.pretrained import validate_checkpoint
from tests.families import FAMILIES

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
WEIGHTS = "model.safetensors"
QUESTIONS_ALONE = (
    "{% for turn in messages if turn.role == 'user' %}{% for block in turn.content %}"
    "{{ block.text if block.type == 'text' else '<image>' }}{% endfor %}{% endfor %}"
)


def write(name: str, data: bytes | str) -> Callable[[Path], None]:
    return lambda model: (model / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def cut(name: str, size: int) -> Callable[[Path], None]:
    return lambda model: (model / name).write_bytes((model / name).read_bytes()[:size])


def without(*names: str) -> Callable[[Path], None]:
    def remove(model: Path) -> None:
        for name in names:
            (model / name).unlink()

    return remove


def edited(name: str, *path: str, **changes: Any) -> Callable[[Path], None]:
    """Set keys of a JSON file, at a path in it; None takes a key away."""

    def edit(model: Path) -> None:
        whole = json.loads((model / name).read_text())
        inside = whole
        for key in path:
            inside = inside[key]
        inside.update(changes)
        for key in [key for key, value in changes.items() if value is None]:
            del inside[key]
        (model / name).write_text(json.dumps(whole))

    return edit


def reweighed(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    return lambda model: save_file(change(load_file(model / WEIGHTS)), model / WEIGHTS, {"format": "pt"})


def without_projector(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in weights.items() if "projector" not in name}


def in_shards(model: Path, lacking: int = 0) -> None:
    """Two files with an index, as a large model; some of the weights are in the index alone."""
    weights = load_file(model / WEIGHTS)
    names = sorted(weights)
    files = {name: f"model-0000{1 + (at > 30)}-of-00002.safetensors" for at, name in enumerate(names)}
    for file in set(files.values()):
        own = [name for name in names if files[name] == file][lacking:]
        save_file({name: weights[name] for name in own}, model / file, {"format": "pt"})
    (model / WEIGHTS).unlink()
    (model / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def lacking_a_shard(model: Path) -> None:
    in_shards(model)
    (model / "model-00002-of-00002.safetensors").unlink()


def emptied(model: Path) -> None:
    shutil.rmtree(model)
    model.mkdir()


def deeper(model: Path) -> None:
    shutil.copytree(model, model / "snapshots" / "abc")
    (model / "config.json").unlink()


def a_run(model: Path) -> None:
    emptied(model)
    (model / "checkpoints").mkdir()
    (model / "config.yaml").write_text("model: {}\n")


def plain_language_model(model: Path) -> None:
    text = json.loads((model / "config.json").read_text())["text_config"]
    (model / "config.json").write_text(json.dumps(text | {"architectures": ["LlamaForCausalLM"]}))


def endless(model: Path) -> None:
    edited("tokenizer_config.json", eos_token=None)(model)
    edited("config.json", "text_config", eos_token_id=-1)(model)


def pickled(model: Path) -> None:
    torch.save(load_file(model / WEIGHTS), model / "pytorch_model.bin")
    (model / WEIGHTS).unlink()


def cut_pickle(model: Path) -> None:
    pickled(model)
    cut("pytorch_model.bin", 3000)(model)


FAULTS: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "nowhere": (shutil.rmtree, ["no such directory"]),
    "empty": (emptied, ["empty"]),
    "run": (a_run, ["directory of a run", "rlaifv export"]),
    "deeper": (deeper, ["config.json is missing", "snapshots/abc"]),
    "no config": (without("config.json"), ["config.json is missing"]),
    "web page": (write("config.json", "<!DOCTYPE html><html>"), ["config.json", "JSON", "DOCTYPE"]),
    "list": (write("config.json", "[]"), ["config.json", "JSON"]),
    "broken json": (write("generation_config.json", "{"), ["generation_config.json", "JSON"]),
    "pointer": (write(WEIGHTS, POINTER), [WEIGHTS, "Git LFS"]),
    "pointer of words": (write("tokenizer.json", POINTER), ["tokenizer.json", "Git LFS"]),
    "no weights": (without(WEIGHTS), ["no weights", WEIGHTS]),
    "cut": (cut(WEIGHTS, -10), [WEIGHTS, "cut off"]),
    "cut header": (cut(WEIGHTS, 100), [WEIGHTS, "cut off"]),
    "empty weights": (write(WEIGHTS, b""), [WEIGHTS, "cut off"]),
    "lost shard": (lacking_a_shard, ["model-00002-of-00002.safetensors is missing", "index"]),
    "short shard": (lambda model: in_shards(model, lacking=1), ["lacks weights", "index"]),
    "cut pickle": (cut_pickle, ["corrupted"]),
    "no projector": (reweighed(without_projector), ["4 weights", "multi_modal_projector.linear_1.bias"]),
    "left over": (reweighed(lambda w: w | {"lora_A.w": torch.ones(1)}), ["1 weight ", "lora_A.w"]),
    "shape": (
        reweighed(lambda w: w | {"multi_modal_projector.linear_1.bias": torch.ones(7)}),
        ["linear_1.bias", "(7,)", "(32,)"],
    ),
    "no processor": (without("processor_config.json"), ["processor_config.json", "preprocessor_config.json"]),
    "no tokenizer": (without("tokenizer.json", "tokenizer_config.json"), ["tokenizer.json"]),
    "odd tokenizer": (write("tokenizer.json", "{}"), ["transformers"]),
    "endless": (endless, ["ends an answer", "eos_token"]),
    "no template": (without("chat_template.jinja"), ["has a chat template", "policy.chat_template"]),
    "template that is none": (
        write("chat_template.jinja", "{% for x in %}"),
        ["chat template", "syntax error in line 1"],
    ),
    "template that raises": (
        write("chat_template.jinja", "{{ raise_exception('never') }}"),
        ["chat template", "never"],
    ),
    "template without questions": (write("chat_template.jinja", "hello"), ["chat template", "user"]),
    "template without answers": (
        write("chat_template.jinja", QUESTIONS_ALONE),
        ["chat template", "assistant"],
    ),
    "other marker": (edited("config.json", image_token_index=7), ["token 7", "token 3", "image"]),
    "other patches": (edited("processor_config.json", patch_size=7), ["16 tokens", "4 features"]),
    "class token": (
        edited("processor_config.json", num_additional_image_tokens=0),
        ["3 tokens", "4 features"],
    ),
    "few rows": (edited("config.json", "text_config", vocab_size=400), ["31 tokens", "400 rows"]),
    "adapter": (
        write("adapter_config.json", '{"base_model_name_or_path": "a/b"}'),
        ["adapter", "'a/b'", "merge"],
    ),
    "quantised": (
        edited("config.json", quantization_config={"quant_method": "awq", "bits": 4}),
        ["quantised by awq"],
    ),
    "language model": (plain_language_model, ["llama", "does not read images"]),
    "unknown": (edited("config.json", model_type="llava17"), ["llava17"]),
}


@pytest.fixture
def model(family_dir: Callable[[str], Path], tmp_path: Path) -> Iterator[Path]:
    yield shutil.copytree(family_dir("llava"), tmp_path / "model")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_cure(model: Path, fault: str):
    change, words = FAULTS[fault]
    change(model)
    with pytest.raises(PolicyError) as caught:
        validate_checkpoint(PolicySpec(path=str(model)), trains=True)
    message = str(caught.value)
    assert str(model) in message and "\n" not in message and len(message) < 700
    assert not [word for word in words if word not in message], message


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_model_is_valid(family_dir: Callable[[str], Path], family: str):
    validate_checkpoint(PolicySpec(path=str(family_dir(family))), trains=True)


MENDED: dict[str, Callable[[Path], Any]] = {
    "shards": in_shards,
    "pickle of tensors": pickled,
    "no pad token": edited("tokenizer_config.json", pad_token=None),
    "end token in the config alone": edited("tokenizer_config.json", eos_token=None),
    "no patch size": edited("processor_config.json", patch_size=None),
    "an older processor": edited(
        "processor_config.json",
        patch_size=None,
        vision_feature_select_strategy=None,
        num_additional_image_tokens=None,
    ),
    "derived buffers": reweighed(
        lambda w: w | {"vision_tower.vision_model.embeddings.position_ids": torch.zeros(1, 5)}
    ),
    "foreign files": write("samples.json", "[1, 2"),
}


@pytest.mark.parametrize("change", MENDED)
def test_what_has_one_meaning_is_loaded(model: Path, family_dir: Callable[[str], Path], change: str):
    """The same weights and the same tokens as of the model that nothing was done to."""
    MENDED[change](model)
    spec, whole = PolicySpec(path=str(model)), PolicySpec(path=str(family_dir("llava")))
    validate_checkpoint(spec, trains=True)
    weights, expected = (load_model(one).state_dict() for one in (spec, whole))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    found, wanted = (rows_of(load_processor(one)) for one in (spec, whole))
    assert found == wanted


def rows_of(processor: Any) -> list[list[int]]:
    """Tokens of two questions of unlike length about an image, without their padding."""
    chat: Any = Chat(processor)
    texts = [chat.render([message_with_images(text, 1)], ask=True) for text in ("a", "a longer one")]
    image = Image.new("RGB", (40, 30))
    return [row.ids for row in chat.open(texts, [[image], [image]])[0]]


def test_the_tokenizers_template_serves_where_the_processor_has_none(model: Path):
    template = (model / "chat_template.jinja").read_text()
    without("chat_template.jinja")(model)
    edited("tokenizer_config.json", chat_template=template)(model)
    assert AutoProcessor.from_pretrained(model).chat_template is None
    assert load_processor(PolicySpec(path=str(model))).chat_template == template


def test_generation_ends_where_the_tokenizer_says(model: Path):
    without("generation_config.json")(model)
    edited("config.json", "text_config", eos_token_id=None, pad_token_id=None)(model)
    how = load_model(PolicySpec(path=str(model))).generation_config
    tokenizer = load_processor(PolicySpec(path=str(model))).tokenizer
    assert how.eos_token_id == tokenizer.eos_token_id and how.pad_token_id is not None


def test_missing_weights_are_an_error_of_loading_itself(model: Path):
    reweighed(without_projector)(model)
    with pytest.raises(PolicyError, match="multi_modal_projector"):
        load_model(PolicySpec(path=str(model)))


class Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_nothing_is_unpickled(model: Path, tmp_path: Path):
    without(WEIGHTS)(model)
    torch.save({"a": Payload(tmp_path / "ran")}, model / "pytorch_model.bin")
    with pytest.raises(PolicyError, match="pickle"):
        validate_checkpoint(PolicySpec(path=str(model)))
    (model / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Payload(tmp_path / "ran")}))
    with pytest.raises(PolicyError):
        load_model(PolicySpec(path=str(model)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("path", ["config.json", "last.ckpt"])
def test_a_file_is_no_model(model: Path, path: str):
    (model / "last.ckpt").touch()
    with pytest.raises(PolicyError, match=f"{path}.*(file|checkpoint of a run)"):
        load_model(PolicySpec(path=str(model / path)))


@pytest.mark.parametrize("path", ["./model", "models/a/b", "/nowhere/a", "here/model"])
def test_a_path_that_can_only_be_local_never_asks_the_hub(tmp_path: Path, monkeypatch: Any, path: str):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub_access, "is_reachable", lambda _: pytest.fail("asked the hub"))
    monkeypatch.setattr(hub_access, "is_offline_mode", lambda: False)
    with pytest.raises(PolicyError, match="no such directory"):
        load_model(PolicySpec(path=path))


def test_a_hub_that_does_not_answer_costs_seconds(monkeypatch: Any):
    """An address of this machine at which something listens and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(hub_access.constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(hub_access, "is_offline_mode", lambda: False)
        started = time.monotonic()
        with pytest.raises(PolicyError, match=r"owner/name.*does not answer.*cache"):
            load_processor(PolicySpec(path="owner/name"))
        assert time.monotonic() - started < 5


def test_offline_a_hub_name_is_looked_for_in_the_cache_alone():
    with pytest.raises(PolicyError, match=r"owner/name.*HF_HUB_OFFLINE.*cache"):
        load_processor(PolicySpec(path="owner/name"))
