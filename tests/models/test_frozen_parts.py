"""A part that is frozen stays as it came: its statistics, its mode, and in the export its bytes."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from rlaifv_pl.cli.fit import main
from rlaifv_pl.models.attention import unsupported_reason
from rlaifv_pl.models.fingerprint import fingerprint, weights_hash
from rlaifv_pl.models.loading import load_policy
from rlaifv_pl.models.policy import LoRA, PolicySpec, load_model, load_processor, vision_tower
from rlaifv_pl.models.reference import frozen
from rlaifv_pl.models.vlm import VLM
from tests.models.fastvlm import build_fastvlm
from tests.training.tiny import dpo_config, write_config, write_pairs


@pytest.fixture(scope="module")
def fastvlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_fastvlm(tmp_path_factory.mktemp("fastvlm") / "model")


def tower_of(directory: Path) -> dict[str, torch.Tensor]:
    weights = load_file(directory / "model.safetensors")
    return {name: value for name, value in weights.items() if "vision_tower" in name}


@pytest.mark.parametrize("policy", [{}, {"lora": {"rank": 2}}], ids=["weights", "adapters"])
def test_the_export_has_the_tower_of_the_base(fastvlm: Path, tmp_path: Path, policy: dict):
    """Trained in two epochs with a validation between them, behind both of which Lightning sets modes anew."""
    shards = write_pairs(tmp_path / "shards", 6)
    settings = dpo_config(fastvlm, shards, data={"val": str(shards)})
    settings["model"]["init_args"]["policy"] = {"path": str(fastvlm), **policy}
    settings["trainer"] |= {"default_root_dir": str(tmp_path / "run"), "val_check_interval": 1}
    main(["fit", "--config", str(write_config(tmp_path / "config.yaml", settings))])
    base, out = tower_of(fastvlm), tower_of(tmp_path / "run" / "export")
    assert sum("running_var" in name for name in base) > 5 and base.keys() == out.keys()
    assert not [name for name in base if not torch.equal(base[name], out[name])]
    whole = (load_file(path / "model.safetensors") for path in (fastvlm, tmp_path / "run" / "export"))
    one, other = whole
    assert [name for name in one if not torch.equal(one[name], other[name])]  # Something was trained.


@pytest.mark.parametrize("lora", [None, LoRA(rank=2)], ids=["weights", "adapters"])
def test_frozen_parts_are_in_evaluation_mode_and_the_language_model_is_not(fastvlm: Path, lora: LoRA | None):
    spec = PolicySpec(path=str(fastvlm), lora=lora)
    policy, _ = load_policy(spec, load_processor(spec))
    for _ in range(2):
        tower = vision_tower(policy.model)
        assert not any(module.training for module in tower.modules())
        language = policy.model.get_decoder() if lora is None else policy.model.get_base_model().get_decoder()
        assert all(module.training for module in language.modules())
        with frozen(policy):  # As a reference, and back again.
            assert not any(module.training for module in policy.modules())
        nn.Module.train(nn.ModuleDict({"policy": policy}), True)  # What Lightning calls, from above.


def test_a_tower_that_trains_collects_statistics(fastvlm: Path):
    policy = VLM(load_model(PolicySpec(path=str(fastvlm), freeze_vision=False))).train()
    assert all(module.training for module in vision_tower(policy.model).modules())


def test_a_frozen_projector_is_in_evaluation_mode(fastvlm: Path):
    policy = VLM(load_model(PolicySpec(path=str(fastvlm), freeze_projector=True))).train()
    assert not policy.model.model.multi_modal_projector.training and policy.model.get_decoder().training


def test_a_frozen_layer_of_a_tower_that_trains_keeps_its_statistics(fastvlm: Path):
    spec = PolicySpec(path=str(fastvlm), freeze_vision=False, freeze=["*vision_tower.embeddings.*"])
    policy = VLM(load_model(spec)).train()
    tower = vision_tower(policy.model)
    assert not tower.embeddings.batchnorm.training and tower.encoder.training


def test_each_part_gets_an_attention_that_it_has(fastvlm: Path):
    """The tower has no SDPA; the language model shares prefixes all the same."""
    for attention in ("auto", "eager", "sdpa"):
        model = load_model(PolicySpec(path=str(fastvlm), attention=attention))
        expected = "sdpa" if attention == "auto" else attention
        assert model.get_decoder().config._attn_implementation == expected
        assert vision_tower(model).config._attn_implementation == "eager"
    assert unsupported_reason(load_model(PolicySpec(path=str(fastvlm)))) == ""
    assert VLM(load_model(PolicySpec(path=str(fastvlm))), "auto").attention == "auto"


def test_statistics_are_part_of_what_a_model_is_known_by(fastvlm: Path):
    """What was computed with one tower is never taken for another's that differs in its statistics alone."""
    one, other = (load_model(PolicySpec(path=str(fastvlm))) for _ in range(2))
    assert weights_hash(one) == weights_hash(other) and fingerprint(one) == fingerprint(other)
    vision_tower(other).embeddings.batchnorm.running_var.mul_(1.5)
    assert weights_hash(one) != weights_hash(other) and fingerprint(one) != fingerprint(other)
