"""An adapter alone: base and adapter say what the trained model says, through PEFT's own loading."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from rlaifv_pl.export import adapter
from rlaifv_pl.export.adapter import export_adapter
from rlaifv_pl.export.policy import ExportError
from rlaifv_pl.models.policy import LoRA, PolicySpec, load_model, load_processor
from tests.families import FAMILIES
from tests.models.plain import PAIRS, completion_logps


def adapted(spec: PolicySpec) -> torch.nn.Module:
    """A model whose adapters were trained."""
    torch.manual_seed(0)
    model = load_model(spec).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_base_and_adapter_say_what_the_trained_model_says(family, family_dir, tmp_path):
    spec = PolicySpec(path=str(family_dir(family)), lora=LoRA(rank=4))
    model, processor = adapted(spec), load_processor(spec)
    out = export_adapter(model, processor, spec, tmp_path / "adapter")
    base = AutoModelForImageTextToText.from_pretrained(spec.path).eval()
    about = (processor, family, PAIRS[0], PAIRS[0].chosen, PAIRS[0].images)
    alone = completion_logps(base, *about)
    again = completion_logps(PeftModel.from_pretrained(base, out).eval(), *about)
    assert torch.allclose(again, completion_logps(model, *about), atol=2e-5)
    assert (again - alone).abs().max() > 1e-2


def test_only_the_adapter_is_written_equal_bytes_each_time_and_nothing_of_the_machine(family_dir, tmp_path):
    spec = PolicySpec(path=str(family_dir("llava")), lora=LoRA(rank=4))
    for name in ("one", "two"):
        export_adapter(adapted(spec), load_processor(spec), spec, tmp_path / name)
    files = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    assert set(files) == {"adapter_config.json", "adapter_model.safetensors"}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "two").iterdir()}
    config = json.loads(files["adapter_config.json"])
    assert config["base_model_name_or_path"] == family_dir("llava").name and config["r"] == 4
    assert str(family_dir("llava").parent).encode() not in b"".join(files.values())


def test_a_hub_name_and_its_revision_stand_in_the_config():
    assert adapter.base_name("llava-hf/llava-1.5-7b-hf") == "llava-hf/llava-1.5-7b-hf"


def test_a_model_without_adapters_has_none_to_write(family_dir, tmp_path):
    spec = PolicySpec(path=str(family_dir("llava")))
    with pytest.raises(ExportError, match="trains weights, not adapters"):
        export_adapter(load_model(spec), load_processor(spec), spec, tmp_path / "adapter")


def test_an_adapter_that_comes_back_different_is_not_exported(family_dir, tmp_path, monkeypatch):
    """Matrices of zeros stand for any loss on the way."""
    spec = PolicySpec(path=str(family_dir("llava")), lora=LoRA(rank=4))
    write = adapter._write

    def lose(model, spec, out):
        write(model, spec, out)
        path = out / "adapter_model.safetensors"
        save_file({name: 0 * value for name, value in load_file(path).items()}, path)

    monkeypatch.setattr(adapter, "_write", lose)
    with pytest.raises(ExportError, match="gives a log-p of"):
        export_adapter(adapted(spec), load_processor(spec), spec, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_an_adapter_that_no_server_would_find_is_not_exported(family_dir, tmp_path, monkeypatch):
    spec = PolicySpec(path=str(family_dir("llava")), lora=LoRA(rank=4))
    served = dict(adapter.SERVED)
    monkeypatch.setattr("rlaifv_pl.export.model_directory.SERVED", served)
    served["LlavaForConditionalGeneration"] = served["Idefics3ForConditionalGeneration"]
    with pytest.raises(ExportError, match="the adapter would change nothing"):
        export_adapter(adapted(spec), load_processor(spec), spec, tmp_path / "adapter")
