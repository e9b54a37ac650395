"""A model out: one self-contained Hugging Face directory that loads anywhere and gives equal log-ps."""

import copy
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel

from rlaifv_pl.data.atomic import WriteError, writing
from rlaifv_pl.data.atomic_directory import replace_directory, restore_directory
from rlaifv_pl.data.collate import Collator
from rlaifv_pl.errors import UserError
from rlaifv_pl.export.model_directory import missing_files
from rlaifv_pl.models.chat import Chat, Dialogue, prompt_messages, text_message
from rlaifv_pl.models.policy import unwrap_model
from rlaifv_pl.models.reference import frozen
from rlaifv_pl.models.vlm import VLM, Batch
from rlaifv_pl.records import Sample

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.5, torch.float16: 0.1}
"""Nats that a completion's log-p may move by saving and loading, by type of the weights."""


class ExportError(UserError, RuntimeError):
    """The exported model does not say what the trained one says."""


@dataclass(frozen=True, kw_only=True)
class Reload:
    """Log-ps of a fixed answer about a fixed picture, in nats."""

    in_memory: float
    """Under the model as it was trained."""
    reloaded: float
    """Under what was written, loaded again."""
    base: float | None = None
    """Under the model without its adapters; None where it has none."""
    is_trained: bool = True
    """False for adapters that are still as they were drawn, which change nothing."""


Finish = Callable[[Path, Reload], None]
"""Puts more files into a directory that was checked, before it takes its name."""


def export_policy(
    model: nn.Module, processor: Any, out: str | Path, finish: Finish = lambda _out, _reload: None
) -> Path:
    """Write the model with its processor, load it again, and compare log-ps.

    Adapters are merged into a copy of the weights. The directory appears under its name only when it
    is complete and checked; one that is there already is replaced then.

    Args:
        model: of transformers, or a PEFT model around one.
        processor: that goes with it.
        out: directory.
        finish: what else is written into it.

    Raises:
        ExportError: the reloaded model gives other log-ps, or those of the model without its adapters; or `out` holds
            something else than a model.
        WriteError: there is no room, or no permission.
    """
    model = model.eval()

    def write(aside: Path) -> None:
        _write(_merged(model), processor, aside)
        if missing := missing_files(aside):
            raise ExportError(f"{aside}: the model cannot be used elsewhere: {'; '.join(missing)}.")
        finish(aside, _check(model, processor, aside))

    return replacing(Path(out), "config.json", write)


def replacing(out: Path, mark: str, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a directory that takes its name only when it is complete.

    Args:
        out: the name; a directory that is there is replaced if it holds `mark`.
        mark: name of a file that every such directory has.
        write: gets the directory to fill.

    Raises:
        ExportError: `out` holds something else.
    """
    restore_directory(out)
    if out.exists() and not (out / mark).is_file():
        raise ExportError(f"{out} exists and is no model directory, so it is not replaced. Name another one.")
    place = out.resolve()  # A link stays one.
    aside = place.with_name(f"{place.name}.writing")
    shutil.rmtree(aside, ignore_errors=True)
    write(aside)
    replace_directory(aside, place)
    return out


def _merged(model: Any) -> PreTrainedModel:
    return model if model is unwrap_model(model) else copy.deepcopy(model).merge_and_unload()


def _write(model: PreTrainedModel, processor: Any, out: Path) -> None:
    try:
        with writing(out, sum(parameter.nbytes for parameter in model.parameters())):
            out.parent.mkdir(parents=True, exist_ok=True)
            model.save_pretrained(out)
            processor.save_pretrained(out)
            # Part of processor_config.json by now; programs with an older transformers look for the file of its own.
            processor.image_processor.save_pretrained(out)
    except WriteError:
        shutil.rmtree(out, ignore_errors=True)  # It would take the room of what comes next.
        raise


def _check(model: nn.Module, processor: Any, saved: Path) -> Reload:
    weight = next(model.parameters())
    again: nn.Module = AutoModelForImageTextToText.from_pretrained(saved, dtype=weight.dtype)
    return compare(model, again.to(weight.device).eval(), (processor, _processor(saved)), saved)


def compare(model: nn.Module, again: nn.Module, processors: tuple[Any, Any], saved: Path) -> Reload:
    """Compare the log-ps of a model with those of its reloaded files.

    Args:
        model, again: in memory and reloaded; a PEFT model is also asked without its adapters.
        processors: of each.
        saved: the directory, for messages.

    Raises:
        ExportError: they differ, or adapters were lost on the way.
    """
    weight = next(model.parameters())
    batch, reloaded = (move_data_to_device(probe(one), weight.device) for one in processors)
    if not torch.equal(batch.tokens.rows["input_ids"], reloaded.tokens.rows["input_ids"]):
        raise ExportError(f"{saved}: the saved processor tokenises differently from the one in memory.")
    ours, theirs, base = _logps(model, batch), _logps(again, reloaded), None
    difference = abs(ours.sum().item() - theirs.sum().item())
    if not difference <= TOLERANCE[weight.dtype]:
        raise ExportError(
            f"{saved}: reloaded, the model gives a log-p of {theirs.sum():.6f} where the trained one gives "
            f"{ours.sum():.6f}. The files are kept for inspection; do not use them."
        )
    if model is not unwrap_model(model):
        base = _logps(model, batch, adapters=False)
    if base is not None and is_trained(model) and torch.equal(theirs, base) and not torch.equal(ours, base):
        raise ExportError(
            f"{saved}: what the adapters learned was lost: reloaded, the model gives each log-p that it gives without "
            f"them. Their changes are smaller than {weight.dtype} can hold; merge into float32 (policy.dtype), or "
            "export the adapter alone (--adapter true)."
        )
    return Reload(
        in_memory=ours.sum().item(),
        reloaded=theirs.sum().item(),
        base=None if base is None else base.sum().item(),
        is_trained=is_trained(model),
    )


@torch.no_grad()
def _logps(model: nn.Module, batch: Batch, *, adapters: bool = True) -> Tensor:
    policy = VLM(model).eval()
    with frozen(policy, adapters=adapters):
        return policy(batch)


def is_trained(model: nn.Module) -> bool:
    """Return whether the model's adapters, if it has any, change anything: their second matrices begin as zeros."""
    second = [value for name, value in model.named_parameters() if "lora_B" in name]
    return not second or any(value.any().item() for value in second)


def _processor(saved: Path) -> Any:
    return AutoProcessor.from_pretrained(saved)


def probe(processor: Any) -> Batch:
    """Return a fixed answer about a fixed picture, for comparing models."""
    picture = io.BytesIO()
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(picture, "PNG")
    answer = "there is a white square and a red circle."
    sample = Sample(
        key="probe", prompt="describe the picture.", images=(picture.getvalue(),), completion=answer
    )
    messages = [*prompt_messages(sample), text_message("assistant", answer)]
    return Collator(Chat(processor), lambda _sample: [Dialogue(messages, (0,))], parts=1)([sample])
