"""What other programs look for in an exported directory: files, and names of weights and adapters.

vLLM is not run here. Its module names are written out below, as its sources have them for a released checkpoint of
each family.
"""

import json

import pytest
from safetensors.torch import load_file, save_file

from rlaifv_pl.export.model_directory import NEEDED, missing_files, unserved, unserved_adapter
from rlaifv_pl.export.policy import export_policy
from rlaifv_pl.export.vllm_names import SERVED
from rlaifv_pl.models.policy import LoRA, PolicySpec, load_model, load_processor
from tests.families import FAMILIES

FRESH = ("llava", "llava_next", "gemma3")
"""Built by this transformers, their towers lack a module's name that released checkpoints have."""

PLACES = {
    ("LlavaForConditionalGeneration", "language_model.model.layers.0.mlp.up_proj.weight"): (
        "language_model.model.layers.0.mlp.up_proj.weight"
    ),
    ("LlavaForConditionalGeneration", "model.language_model.layers.0.mlp.up_proj.weight"): (
        "language_model.model.layers.0.mlp.up_proj.weight"
    ),
    ("LlavaForConditionalGeneration", "lm_head.weight"): "language_model.lm_head.weight",
    ("LlavaForConditionalGeneration", "model.multi_modal_projector.linear_1.bias"): (
        "multi_modal_projector.linear_1.bias"
    ),
    ("Qwen2_5_VLForConditionalGeneration", "model.layers.3.self_attn.q_proj.bias"): (
        "language_model.model.layers.3.self_attn.q_proj.bias"
    ),
    ("Qwen2_5_VLForConditionalGeneration", "model.language_model.layers.3.self_attn.q_proj.bias"): (
        "language_model.model.layers.3.self_attn.q_proj.bias"
    ),
    (
        "Qwen2_5_VLForConditionalGeneration",
        "visual.blocks.0.attn.qkv.weight",
    ): "visual.blocks.0.attn.qkv.weight",
    ("Qwen2_5_VLForConditionalGeneration", "model.visual.merger.ln_q.weight"): "visual.merger.ln_q.weight",
    ("Idefics3ForConditionalGeneration", "model.text_model.norm.weight"): "model.text_model.norm.weight",
}
"""(architecture, name in a file, of old or new checkpoints): name of the parameter in vLLM."""


@pytest.fixture
def exported(family_dir, tmp_path):
    """`exported(family)` is the directory of one that was exported."""

    def make(family):
        spec = PolicySpec(path=str(family_dir(family)))
        return export_policy(load_model(spec), load_processor(spec), tmp_path / family)

    return make


@pytest.mark.parametrize(("given", "place"), PLACES.items(), ids=[" ".join(given) for given in PLACES])
def test_names_old_and_new_lead_to_the_same_place(given, place):
    architecture, name = given
    assert SERVED[architecture].rename(name) == place


@pytest.mark.parametrize("family", FAMILIES)
def test_an_export_has_every_file_and_its_weights_have_places(family, exported):
    out = exported(family)
    assert missing_files(out) == []
    assert json.loads((out / "config.json").read_text())["architectures"][0] in SERVED
    problems = unserved(out)
    assert bool(problems) == (family in FRESH)
    _like_a_released_one(out)
    assert unserved(out) == []


def _like_a_released_one(out):
    weights = load_file(out / "model.safetensors")
    if not any(".vision_model." in name for name in weights):
        old = "vision_tower.e", "vision_tower.p"
        new = {
            name.replace("vision_tower.", "vision_tower.vision_model.")
            if name.startswith(old)
            else name: value
            for name, value in weights.items()
        }
        is_deep = any("embeddings.patch_embedding.weight" in name for name in new)
        save_file(new if is_deep else weights, out / "model.safetensors")


@pytest.mark.parametrize("name", sorted({name for names in NEEDED for name in names}))
def test_each_missing_file_is_named(name, exported):
    out = exported("llava")
    others = [other for names in NEEDED if name in names for other in names]
    for other in others:
        (out / other).unlink(missing_ok=True)
    (problem,) = missing_files(out)
    assert name in problem and "is missing" in problem


def test_a_lost_shard_of_the_weights_is_named(family_dir, tmp_path):
    spec = PolicySpec(path=str(family_dir("llava")))
    out = export_policy(load_model(spec), load_processor(spec), tmp_path / "model")
    load_model(spec).save_pretrained(out, max_shard_size="100KB")
    (out / "model.safetensors").unlink()
    assert missing_files(out) == []
    lost = sorted(out.glob("model-*.safetensors"))[1]
    lost.unlink()
    (problem,) = missing_files(out)
    assert lost.name in problem


def test_an_architecture_that_is_not_known_is_said_to_be(exported):
    out = exported("qwen2_5_vl")
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"architectures": ["NewForConditionalGeneration"]}))
    (problem,) = unserved(out)
    assert "NewForConditionalGeneration" in problem


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_lead_to_layers_and_wrong_ones_are_noticed(family, family_dir, tmp_path):
    """The mistakes that are on record: a prefix too many, one too few, another family's, a layer that is not there."""
    model = load_model(PolicySpec(path=str(family_dir(family)), lora=LoRA(rank=2)))
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    architecture = type(model.get_base_model()).__name__
    layers = model.get_base_model().config.get_text_config().num_hidden_layers
    assert unserved_adapter(tmp_path, architecture, layers) == []
    assert "2 such" not in unserved_adapter(tmp_path, architecture, 1)[0]
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    for wrong in (
        lambda name: f"base_model.model.{name}",
        lambda name: name.removeprefix("base_model.model."),
        lambda name: name.replace("_model.layers", "_model.blocks"),
        lambda name: name.replace("lora_A.weight", "lora_A.default.weight"),
    ):
        save_file(
            {wrong(name): value for name, value in tensors.items()}, tmp_path / "adapter_model.safetensors"
        )
        (problem,) = unserved_adapter(tmp_path, architecture, layers)
        assert "vLLM has no place" in problem
