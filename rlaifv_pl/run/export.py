"""A model out: one self-contained Hugging Face directory that loads anywhere and gives equal log-ps."""

import copy
import io
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, AutoProcessor

from rlaifv_pl.data.atomic import WriteError, writing
from rlaifv_pl.data.collate import Collator
from rlaifv_pl.models.chat import Chat, Dialogue, prompt_messages, turn
from rlaifv_pl.models.fsdp import on_first
from rlaifv_pl.models.identity import fingerprint
from rlaifv_pl.models.policy import LoRA, PolicySpec, load_model, load_processor, plain_model
from rlaifv_pl.models.vlm import VLM, Batch
from rlaifv_pl.objectives.base import AlignmentModule
from rlaifv_pl.objectives.checks import slicing_of
from rlaifv_pl.records import Sample
from rlaifv_pl.run.checkpoint_file import CheckpointFiles

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.5, torch.float16: 0.1}
"""Nats that a completion's log-p may move by saving and loading, by type of the weights."""


class ExportError(RuntimeError):
    """The exported model does not say what the trained one says."""


def export_policy(model: nn.Module, processor: Any, out: str | Path) -> Path:
    """Write the model with its processor, load it again, and compare log-ps.

    Adapters are merged into a copy of the weights. The directory appears under its name only when it
    is complete and checked; one that is there already is replaced then.

    Args:
        model: of transformers, or a PEFT model around one.
        processor: that goes with it.
        out: directory.

    Raises:
        ExportError: the reloaded model gives other log-ps, or `out` holds something else than a model.
        WriteError: there is no room, or no permission.
    """
    out = Path(out)
    if out.exists() and not (out / "config.json").is_file():
        raise ExportError(f"{out} exists and is no model directory, so it is not replaced. Name another one.")
    aside, old = (out.with_name(f"{out.name}.{state}") for state in ("writing", "old"))
    shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    model = model.eval()
    adapted = model is not plain_model(model)
    merged = copy.deepcopy(model).merge_and_unload() if adapted else model
    _write(merged, processor, aside)
    _check(model, processor, aside)
    if out.exists():
        out.rename(old)
    aside.rename(out)
    shutil.rmtree(old, ignore_errors=True)
    return out


def _write(model: nn.Module, processor: Any, out: Path) -> None:
    try:
        with writing(out, sum(parameter.nbytes for parameter in model.parameters())):
            out.parent.mkdir(parents=True, exist_ok=True)
            model.save_pretrained(out)
            processor.save_pretrained(out)
    except WriteError:
        shutil.rmtree(out, ignore_errors=True)  # It would take the room of what comes next.
        raise


@torch.no_grad()
def _check(model: nn.Module, processor: Any, saved: Path) -> None:
    weight = next(model.parameters())
    again = AutoModelForImageTextToText.from_pretrained(saved, dtype=weight.dtype).to(weight.device).eval()
    batch, reloaded = (
        move_data_to_device(probe(one), weight.device) for one in (processor, _processor(saved))
    )
    if not torch.equal(batch.rows["input_ids"], reloaded.rows["input_ids"]):
        raise ExportError(f"{saved}: the saved processor tokenises differently from the one in memory.")
    ours, theirs = VLM(model)(batch).sum().item(), VLM(again)(reloaded).sum().item()
    if not abs(ours - theirs) <= TOLERANCE[weight.dtype]:
        raise ExportError(
            f"{saved}: reloaded, the model gives a log-p of {theirs:.6f} where the trained one gives {ours:.6f}. "
            "The files are kept for inspection; do not use them."
        )


def _processor(saved: Path) -> Any:
    return AutoProcessor.from_pretrained(saved)


def probe(processor: Any) -> Batch:
    """A fixed answer about a fixed picture, for comparing models."""
    picture = io.BytesIO()
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(picture, "PNG")
    answer = "there is a white square and a red circle."
    sample = Sample(
        key="probe", prompt="describe the picture.", images=(picture.getvalue(),), completion=answer
    )
    messages = [*prompt_messages(sample), turn("assistant", answer)]
    return Collator(Chat(processor), lambda _sample: [Dialogue(messages, (0,))], parts=1)([sample])


class ExportPolicy(Callback):
    """Writes the trained policy to `<run>/export` when the run ends.

    Args:
        at_end: switch it off for a run whose weights are not wanted.
    """

    def __init__(self, at_end: bool = True) -> None:
        self.at_end = at_end

    def on_fit_end(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        if not self.at_end or trainer.fast_dev_run:
            return
        model = pl_module.policy.model
        if slicing_of(trainer) is not None:
            weights = on_first(pl_module.trained_state())
            model = trained(load_model(pl_module.policy_spec), weights) if trainer.is_global_zero else None
        if trainer.is_global_zero:
            out = Path(trainer.default_root_dir) / "export"
            export_policy(model, pl_module.processor, out)
            rank_zero_info(f"The trained model is in {out}; its log-ps equal those in memory.")


def trained(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """A model with what a run has trained of it.

    Args:
        model: that the run started from.
        state: of the run's module, whole.

    Raises:
        ExportError: something that trains has no weight in the state.
    """
    prefix = "policy.model."
    weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    expected = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if missing := sorted(expected - set(weights)):
        raise ExportError(f"the checkpoint lacks {missing[:8]}, which the run's config trains.")
    model.load_state_dict(weights, strict=False)
    return model


def export(run: str, out: str, checkpoint: str = "last") -> None:
    """Write the policy of a run's checkpoint as a Hugging Face directory, checked by its log-ps.

    Args:
        run: directory of the run.
        out: directory to write.
        checkpoint: name of a file in the run's `checkpoints`, without `.ckpt`.
    """
    settings = yaml.safe_load((Path(run) / "config.yaml").read_text())["model"]["init_args"]["policy"]
    lora = settings.pop("lora", None)
    spec = PolicySpec(**settings, lora=LoRA(**lora) if lora else None)
    path = Path(run) / "checkpoints" / f"{checkpoint}.ckpt"
    model, stored = load_model(spec), CheckpointFiles().load_checkpoint(path)
    if stored["base"]["weights"] != fingerprint(model):
        raise ExportError(
            f"{path} is of a run that started from {stored['base']['path']}, and {spec.path} holds other weights "
            "now. Put the run's own model back: what was frozen in the run is read from there."
        )
    made = export_policy(trained(model, stored["state_dict"]), load_processor(spec), out)
    print(f"The model of {path} is in {made}.")
