"""What trains of a policy and what does not, and what is said when that cannot be."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from rlaifv_pl.data.collate import Collator
from rlaifv_pl.models.chat import Chat, Dialogue, prompt_messages, text_message
from rlaifv_pl.models.policy import (
    LoRA,
    PolicyError,
    PolicySpec,
    load_model,
    load_processor,
    parameter_table,
    unwrap_model,
    vision_tower,
)
from rlaifv_pl.models.reference import Reference, resolve_reference
from rlaifv_pl.models.vlm import VLM, Batch
from rlaifv_pl.records import Sample
from tests.families import FAMILIES
from tests.models.plain import PAIRS


@pytest.fixture(params=FAMILIES)
def path(request: pytest.FixtureRequest, family_dir: Callable[[str], Path]) -> str:
    return str(family_dir(request.param))


@pytest.fixture
def llava(family_dir: Callable[[str], Path]) -> str:
    return str(family_dir("llava"))


def batch_for(path: str) -> Batch:
    def chosen(sample: Sample) -> Sequence[Dialogue]:
        return [Dialogue([*prompt_messages(sample), text_message("assistant", sample.chosen)], (0,))]

    return Collator(Chat(load_processor(PolicySpec(path=path))), chosen, parts=1)(PAIRS)


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def step(model: nn.Module, batch: Batch) -> None:
    """One step of plain SGD on all that has a gradient."""
    VLM(model).train()(batch).sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.01 * parameter.grad


def changed(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}


def test_a_frozen_tower_gets_no_gradient_and_stays(path: str):
    """Qwen's and Idefics's projectors lie in other places than LLaVA's, so names are taken from the model."""
    model = load_model(PolicySpec(path=path))
    tower = {
        name
        for name, p in model.named_parameters()
        if id(p) in set(map(id, vision_tower(model).parameters()))
    }
    before = snapshot(model)
    step(model, batch_for(path))
    gradients = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert len(tower) > 10 and all("vision" in name or "visual" in name for name in tower)
    assert gradients == before.keys() - tower
    assert changed(model, before) == gradients


def test_a_free_tower_learns(path: str):
    model = load_model(PolicySpec(path=path, freeze_vision=False))
    before = snapshot(model)
    step(model, batch_for(path))
    tower = set(map(id, vision_tower(model).parameters()))
    moved = changed(model, before)
    assert sum(id(p) in tower and name in moved for name, p in model.named_parameters()) > 0.5 * len(tower)


@pytest.mark.parametrize(
    ("family", "between"),
    [("llava", "multi_modal_projector"), ("gemma3", "multi_modal_projector"), ("idefics3", "connector")],
)
def test_a_frozen_projector_leaves_only_the_language_model(family: str, between: str, family_dir):
    """The projector is what the checkpoint's own names call so."""
    path = str(family_dir(family))
    names = {name for name, _ in load_model(PolicySpec(path=path)).named_parameters()}
    projector = {name for name in names if between in name}
    trains, still = (
        {
            name
            for name, parameter in load_model(PolicySpec(path=path, freeze_projector=flag)).named_parameters()
            if parameter.requires_grad
        }
        for flag in (False, True)
    )
    assert projector and trains - still == projector
    assert still and all(
        "language_model" in name or "text_model" in name or "lm_head" in name for name in still
    )


def test_patterns_freeze_what_they_match(llava: str):
    model = load_model(
        PolicySpec(path=llava, freeze=["*.embed_tokens.*", "lm_head.weight", "*layers.0.mlp*"])
    )
    still = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    language = {name for name in still if "vision_tower" not in name}
    layer = "model.language_model.layers.0.mlp"
    assert language == {
        "lm_head.weight",
        "model.language_model.embed_tokens.weight",
        *(f"{layer}.{part}_proj.weight" for part in ("gate", "up", "down")),
    }


def test_a_pattern_without_a_match_is_refused_by_name(llava: str):
    with pytest.raises(PolicyError, match=r"no parameter has a name like \['\*visoin\*'\]"):
        load_model(PolicySpec(path=llava, freeze=["lm_head*", "*visoin*"]))


def test_nothing_left_to_train_is_refused(llava: str):
    with pytest.raises(PolicyError, match="nothing is left to train"):
        load_model(PolicySpec(path=llava, freeze=["*"]))


def test_adapters_sit_in_the_language_model_only(path: str):
    model = load_model(PolicySpec(path=path, lora=LoRA(rank=2)))
    trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    decoder = unwrap_model(model).get_decoder()
    inside = set(map(id, decoder.parameters()))
    assert all("lora_" in name for name in trains)
    assert all(id(parameter) in inside for name, parameter in model.named_parameters() if name in trains)
    # Two layers with four projections of the attention and three of the MLP, and two matrices each.
    assert len(trains) == 2 * 7 * 2


def test_only_adapters_move_in_a_step(llava: str):
    """B starts at zero, so in the first step A has a gradient of zero and B moves alone."""
    model = load_model(PolicySpec(path=llava, lora=LoRA(rank=2)))
    before = snapshot(model)
    step(model, batch_for(llava))
    assert {name for name in before if "lora_B" in name} == changed(model, before)


@pytest.mark.parametrize("changes", [{"freeze": ["lm_head.weight"]}, {"freeze_vision": False}])
def test_adapters_beside_other_wishes_for_training_are_refused(llava: str, changes: dict):
    """With adapters nothing else trains: `freeze` would have no effect, nor would an unfrozen tower."""
    with pytest.raises(
        PolicyError, match=r"policy\.lora trains adapters of the language model and nothing else"
    ):
        load_model(PolicySpec(path=llava, lora=LoRA(rank=2), **changes))


@pytest.mark.parametrize("changes", [{}, {"freeze_vision": False}, {"lora": LoRA(rank=2, dropout=0.0)}])
def test_checkpointed_activations_give_the_same_gradients(path: str, changes: dict):
    plain, checkpointed = (
        load_model(PolicySpec(path=path, gradient_checkpointing=flag, **changes)) for flag in (False, True)
    )
    checkpointed.load_state_dict(plain.state_dict())  # adapters are drawn at random
    batch = batch_for(path)
    # A hook before the MLP: the second computation ends within it, at the last tensor that is needed.
    recomputed = []
    unwrap_model(checkpointed).get_decoder().layers[0].mlp.register_forward_pre_hook(
        lambda *_: recomputed.append(1)
    )
    for model in (plain, checkpointed):
        VLM(model).train()(batch).sum().backward()
    assert len(recomputed) == 2  # forward, and again in the backward pass
    for (name, one), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"lora": LoRA(rank=2)}])
def test_checkpointing_gives_a_frozen_tower_no_backward_pass(path: str, changes: dict):
    policy = VLM(load_model(PolicySpec(path=path, gradient_checkpointing=True, **changes))).train()
    outputs = []
    vision_tower(policy.model).register_forward_hook(
        lambda _module, _inputs, output: outputs.append(output[0])
    )
    assert policy(batch_for(path)).requires_grad
    assert len(outputs) == 1 and not outputs[0].requires_grad


def test_a_missing_directory_gives_one_short_error(tmp_path: Path):
    for load in (load_model, load_processor):
        with pytest.raises(PolicyError, match=r"cannot load .*nowhere.*no such directory") as caught:
            load(PolicySpec(path=str(tmp_path / "nowhere")))
        assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)


def test_an_empty_directory_gives_one_short_error(tmp_path: Path):
    for load in (load_model, load_processor):
        with pytest.raises(PolicyError, match=r"cannot load .*directory is empty") as caught:
            load(PolicySpec(path=str(tmp_path)))
        assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)


def test_a_missing_chat_template_is_named(llava: str, tmp_path: Path):
    with pytest.raises(PolicyError, match=r"policy\.chat_template: .*absent\.jinja"):
        load_processor(PolicySpec(path=llava, chat_template=str(tmp_path / "absent.jinja")))


def test_the_table_of_parts_adds_up(path: str):
    model = load_model(PolicySpec(path=path))
    table = {part: (total, trainable) for part, total, trainable in parameter_table(model)}
    tower = sum(parameter.numel() for parameter in vision_tower(model).parameters())
    everything = sum(parameter.numel() for parameter in model.parameters())
    assert table["vision tower"] == (tower, 0)
    assert sum(total for total, _ in table.values()) == everything
    assert sum(trainable for _, trainable in table.values()) == everything - tower
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    language = {
        id(parameter): parameter.numel() for part in (decoder, head) for parameter in part.parameters()
    }
    assert table["language model"] == (sum(language.values()),) * 2


def test_the_table_counts_adapters_to_the_language_model(llava: str):
    model = load_model(PolicySpec(path=llava, lora=LoRA(rank=2)))
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert {part: count for part, _, count in parameter_table(model)} == {
        "vision tower": 0, "projector": 0, "language model": trainable
    }  # fmt: skip
    assert trainable > 0


@pytest.mark.parametrize("lora", [None, LoRA(rank=2)])
def test_policy_and_reference_share_frozen_weights_and_no_others(path: str, lora: LoRA | None):
    policy = VLM(load_model(PolicySpec(path=path, lora=lora)))
    copy = Reference(policy, "live").copy
    own, copied = dict(policy.named_parameters()), dict(copy.named_parameters())
    assert own.keys() == copied.keys()
    shared = {name for name in own if own[name].data_ptr() == copied[name].data_ptr()}
    assert shared == {name for name, parameter in own.items() if not parameter.requires_grad}
    assert 0 < len(shared) < len(own)
    assert not any(parameter.requires_grad for parameter in copied.values())
    assert all(torch.equal(own[name], copied[name]) for name in own)
    assert policy.training and not copy.training


def test_the_reference_follows_the_adapters():
    assert resolve_reference("auto", has_adapters=True) == "adapter_off"
    assert resolve_reference("auto", has_adapters=False) == "live"
    assert resolve_reference("live", has_adapters=True) == "live"
    with pytest.raises(ValueError, match=r"Set policy\.lora, or reference: live"):
        resolve_reference("adapter_off", has_adapters=False)


def test_dropout_of_adapters_is_off_in_the_reference_and_on_in_the_policy(llava: str):
    """Adapters taken off need no dropout; the policy is back in training afterwards, even after a failure."""
    policy = VLM(load_model(PolicySpec(path=llava, lora=LoRA(rank=2, dropout=0.5)))).train()
    reference, batch = Reference(policy, "adapter_off"), batch_for(llava)
    with reference.capture_vision_features():
        policy(batch)
    assert torch.equal(reference.token_logps(batch), reference.token_logps(batch))
    assert policy.training
    with pytest.raises(AttributeError):
        reference.token_logps(None)
    assert policy.training and "forward" not in vision_tower(policy.model).__dict__


@pytest.mark.parametrize("trusts", [False, True])
def test_code_that_comes_with_a_model_runs_only_on_demand(family_dir, tmp_path, monkeypatch, trusts):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    model = shutil.copytree(family_dir("llava"), tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config["auto_map"] = {"AutoModelForImageTextToText": "mine.Mine"}
    (model / "config.json").write_text(json.dumps(config))
    (model / "mine.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
        "from transformers import LlavaForConditionalGeneration\n"
        "class Mine(LlavaForConditionalGeneration):\n    pass\n"
    )
    if trusts:
        # transformers renames what older LLaVA files hold for its own class alone.
        weights = load_file(model / "model.safetensors")
        weights["lm_head.weight"] = weights.pop("language_model.lm_head.weight")
        save_file(weights, model / "model.safetensors", {"format": "pt"})
    loaded = load_model(PolicySpec(path=str(model), trust_remote_code=trusts))
    assert (type(loaded).__name__ == "Mine") == (tmp_path / "ran").exists() == trusts
