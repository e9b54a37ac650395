"""LoRA's adapter alone: a PEFT directory of a few megabytes that goes on top of the base."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from rlaifv_pl.data.atomic import writing
from rlaifv_pl.export.model_directory import unserved_adapter
from rlaifv_pl.export.policy import ExportError, Finish, compare, replacing
from rlaifv_pl.export.vllm_names import SERVED
from rlaifv_pl.models.checkpoint_files import ADAPTER_CONFIG
from rlaifv_pl.models.policy import PolicySpec, load_model, unwrap_model

NAME = "default"
"""Name of the policy's one adapter in PEFT."""


def export_adapter(
    model: nn.Module,
    processor: Any,
    spec: PolicySpec,
    out: str | Path,
    finish: Finish = lambda _out, _reload: None,
) -> Path:
    """Write the adapters of a policy, put them on the base again, and compare log-ps.

    Args:
        model: a PEFT model.
        processor: that goes with it.
        spec: what it was loaded by.
        out: directory, as of `export_policy`.
        finish: what else is written into it.

    Raises:
        ExportError: the model has no adapters; base and adapters give other log-ps; the adapters have names that no
            program would look for; or `out` holds something else than an adapter.
        WriteError: there is no room, or no permission.
    """
    if spec.lora is None:
        raise ExportError(
            "the run trains weights, not adapters (policy.lora is not set): export it without --adapter."
        )
    model = model.eval()

    def write(aside: Path) -> None:
        """The adapter, loaded again on top of its base and compared."""
        from peft import PeftModel

        _write(model, spec, aside)
        base = load_model(replace(spec, lora=None)).requires_grad_(False)
        again = PeftModel.from_pretrained(base, aside).to(next(model.parameters()).device).eval()
        reload = compare(model, again, (processor, processor), aside)
        inside = unwrap_model(model)
        layers = inside.config.get_text_config().num_hidden_layers
        problems = unserved_adapter(aside, type(inside).__name__, layers)
        if problems and type(inside).__name__ in SERVED:
            raise ExportError(f"{aside}: served with vLLM, the adapter would change nothing: {problems[0]}.")
        finish(aside, reload)

    return replacing(Path(out), ADAPTER_CONFIG, write)


def _write(model: Any, spec: PolicySpec, out: Path) -> None:
    config = model.peft_config[NAME]
    config.base_model_name_or_path, config.revision = base_name(spec.path), spec.revision
    # A set has another order in each process, and equal adapters are to be equal files.
    config.target_modules = sorted(config.target_modules)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        # No embedding is adapted; to make sure, PEFT would ask the hub.
        model.save_pretrained(out, save_embedding_layers=False)
    (out / "README.md").unlink()  # A form that nobody filled in.


def base_name(path: str) -> str:
    """Return the name of a base in files that leave the machine: its hub name, or the last part of its directory's."""
    return Path(path).name if Path(path).is_dir() else path
