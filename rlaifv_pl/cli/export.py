"""`rlaifv export`: the policy of a checkpoint as a model, or as an adapter."""

from functools import partial
from pathlib import Path

from rich.console import Console

from rlaifv_pl.export.adapter import export_adapter
from rlaifv_pl.export.checkpoint import load_trained
from rlaifv_pl.export.metadata import UNTRAINED, ExportOrigin, write_metadata
from rlaifv_pl.export.model_directory import unserved
from rlaifv_pl.export.policy import Reload, export_policy
from rlaifv_pl.models.policy import load_processor, unwrap_model


def export(run: str, out: str, checkpoint: str = "last", adapter: bool = False) -> None:
    """Write the policy of a run's checkpoint as a Hugging Face directory with a card, checked by its log-ps.

    Args:
        run: directory of the run.
        out: directory to write.
        checkpoint: name of a file in the run's `checkpoints`, without `.ckpt`.
        adapter: write LoRA's adapter alone, as PEFT does, instead of merging it into the weights.
    """
    found = load_trained(run, checkpoint)
    origin = ExportOrigin(
        run=Path(run),
        spec=found.spec,
        architecture=type(unwrap_model(found.model)).__name__,
        base_weights=found.base_weights,
        step=found.step,
    )
    tell = Console(stderr=True, soft_wrap=True).print

    def finish(aside: Path, reload: Reload) -> None:
        write_metadata(origin)(aside, reload)
        for problem in [] if adapter else unserved(aside):
            tell(f"warning: {problem}.", markup=False)
        if not reload.is_trained:
            tell(f"warning: {UNTRAINED}.")

    write = partial(export_adapter, spec=found.spec) if adapter else export_policy
    made = write(found.model, load_processor(found.spec), out=out, finish=finish)
    print(f"The {'adapter' if adapter else 'model'} of {found.path.name} in {run} is in {made}.")
