"""What is exported loads in plain transformers and says what the trained model says."""

import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from rlaifv_pl.cli.export import export as export_run
from rlaifv_pl.export import policy as export
from rlaifv_pl.export.policy import ExportError, export_policy
from rlaifv_pl.models.policy import LoRA, PolicySpec, load_model, load_processor, vision_tower
from rlaifv_pl.objectives import SFTModule
from tests.families import FAMILIES
from tests.models.plain import PAIRS, completion_logps


def trained(spec: PolicySpec) -> torch.nn.Module:
    """The model as if training had moved everything that trains, adapters included."""
    torch.manual_seed(0)
    model = load_model(spec).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("lora", [None, LoRA(rank=4)], ids=["weights", "adapters"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_exported_model_gives_the_trained_models_log_ps(family, lora, family_dir, tmp_path):
    spec = PolicySpec(path=str(family_dir(family)), lora=lora)
    model, processor = trained(spec), load_processor(spec)
    out = export_policy(model, processor, tmp_path / "model")
    again, its_processor = (
        AutoModelForImageTextToText.from_pretrained(out).eval(),
        AutoProcessor.from_pretrained(out),
    )
    plain, moved = AutoModelForImageTextToText.from_pretrained(spec.path).eval(), 0.0
    for sample in PAIRS[:1]:
        about = (family, sample, sample.chosen, sample.images)
        ours, theirs = (
            completion_logps(model, processor, *about),
            completion_logps(again, its_processor, *about),
        )
        assert torch.allclose(ours, theirs, atol=2e-4)
        moved = max(moved, (completion_logps(plain, processor, *about) - theirs).abs().max().item())
    assert moved > 1e-2, "the exported weights are those from before the training"


def test_a_model_that_comes_back_different_is_not_exported(family_dir, tmp_path, monkeypatch):
    """Reloading something else stands for any loss on the way: the good name never appears."""
    spec = PolicySpec(path=str(family_dir("llava")))
    model, processor = trained(spec), load_processor(spec)

    class Other:
        @staticmethod
        def from_pretrained(_path, **options):
            return AutoModelForImageTextToText.from_pretrained(spec.path, **options)

    monkeypatch.setattr(export, "AutoModelForImageTextToText", Other)
    with pytest.raises(ExportError, match=r"gives a log-p of .* where the trained one gives"):
        export_policy(model, processor, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_an_older_export_is_replaced_and_anything_else_is_not(family_dir, tmp_path):
    spec = PolicySpec(path=str(family_dir("llava")))
    processor = load_processor(spec)
    export_policy(load_model(spec), processor, tmp_path / "model")
    first = (tmp_path / "model" / "model.safetensors").read_bytes()
    export_policy(trained(spec), processor, tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() != first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(ExportError, match="no model directory, so it is not replaced"):
        export_policy(load_model(spec), processor, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").exists()


def test_a_run_is_not_exported_onto_another_base(family_dir, tmp_path):
    """The checkpoint holds what trained; beside other frozen weights it would be another model."""
    base, run = tmp_path / "base", tmp_path / "run"
    shutil.copytree(family_dir("llava"), base)
    spec = PolicySpec(path=str(base))
    module = SFTModule(policy=spec, optimizer=None)
    module.configure_model()
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    (run / "checkpoints").mkdir(parents=True)
    torch.save(checkpoint, run / "checkpoints" / "last.ckpt")
    (run / "config.yaml").write_text(f"model: {{init_args: {{policy: {{path: {base}}}}}}}")
    export_run(str(run), str(tmp_path / "model"))
    other = AutoModelForImageTextToText.from_pretrained(base)
    with torch.no_grad():
        next(vision_tower(other).parameters()).add_(1)
    other.save_pretrained(base)
    with pytest.raises(ExportError, match="holds other weights now"):
        export_run(str(run), str(tmp_path / "again"))


@pytest.mark.parametrize("lora", [None, LoRA(rank=4)], ids=["weights", "adapters"])
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_keep_the_names_that_the_base_has_on_disk(family, lora, family_dir, tmp_path):
    """Programs that load the released checkpoint load its child."""
    spec = PolicySpec(path=str(family_dir(family)), lora=lora)
    out = export_policy(load_model(spec), load_processor(spec), tmp_path / "model")
    assert set(load_file(out / "model.safetensors")) == set(
        load_file(family_dir(family) / "model.safetensors")
    )


def test_adapters_that_are_lost_in_merging_are_noticed(family_dir, tmp_path, monkeypatch):
    """So close to the base that the tolerance would let it pass; but not one log-p has moved."""
    spec = PolicySpec(path=str(family_dir("llava")), lora=LoRA(rank=4))
    model = load_model(spec).eval()
    nudge(model, 1e-6)
    monkeypatch.setattr(type(model), "merge_and_unload", lambda self: self.unload(), raising=False)
    with pytest.raises(ExportError, match="what the adapters learned was lost"):
        export_policy(model, load_processor(spec), tmp_path / "model")
    monkeypatch.undo()
    export_policy(model, load_processor(spec), tmp_path / "model")


def test_adapters_without_training_are_told(family_dir, tmp_path):
    spec, told = PolicySpec(path=str(family_dir("llava")), lora=LoRA(rank=4)), []
    model = load_model(spec)
    for _ in range(2):
        export_policy(
            model, load_processor(spec), tmp_path / "model", lambda _out, reload: told.append(reload)
        )
        nudge(model, 0.05)
    fresh, moved = told
    assert not fresh.is_trained and fresh.in_memory == fresh.base == fresh.reloaded
    assert moved.is_trained and abs(moved.in_memory - moved.base) > 1e-3
    assert moved.reloaded == pytest.approx(moved.in_memory, abs=1e-3)


@torch.no_grad()
def nudge(model: torch.nn.Module, by: float) -> None:
    """Training that went this far in the adapters' second matrices."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter += by * torch.randn_like(parameter)
