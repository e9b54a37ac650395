"""`rlaifv feedback`: preference shards of a policy's own answers, outside of any run."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from rlaifv_pl.data.manifest import Manifest
from rlaifv_pl.data.shards import load_shards
from rlaifv_pl.feedback.engine import Engine
from rlaifv_pl.feedback.parts import Share
from rlaifv_pl.feedback.run import FeedbackRun
from rlaifv_pl.feedback.settings import Feedback, Prompts


def make(
    prompts: list[str] | str,
    out: str,
    policy: Engine,
    feedback: Feedback,
    seed: int = 0,
    limit: int | None = None,
) -> Manifest:
    """Let a policy answer prompts, judge the answers claim by claim, and pair them.

    Killed anywhere, the same command goes on where it was. Several processes share the work when a launcher
    starts them: `torchrun --nproc-per-node 8 --no-python rlaifv feedback ...`.

    Args:
        prompts: shard directory, or several, also as URLs, which are copied to the cache first (RLAIFV_PL_CACHE);
            of each sample only the prompt and the images count.
        out: directory of the preference shards to write.
        policy: the model that answers.
        feedback: how its answers become pairs.
        seed: decides all draws.
        limit: answer only the first so many prompts.
    """
    shards = load_shards(prompts)
    numbers = range(len(shards) if limit is None else min(limit, len(shards)))
    seconds: dict[str, float] = {}
    run = FeedbackRun(
        feedback=feedback,
        policy=policy,
        prompts=Prompts(shards, numbers),
        out=Path(out),
        seed=seed,
        share=Share.of_launcher(),
        clock=seconds.__setitem__,
    )
    manifest = run.make()
    if run.share.rank == 0:
        Console(stderr=True).print(_table(manifest, seconds, out))
    return manifest


def _table(manifest: Manifest, seconds: dict[str, float], out: str) -> Table:
    table = Table("what", "number", title=f"feedback in {out}")
    table.columns[1].justify = "right"
    table.add_row("pairs", f"{manifest.samples:,}")
    for name, value in manifest.notes.items():
        table.add_row(name, f"{value:,.2f}" if isinstance(value, float) else f"{value:,}")
    for reason, count in manifest.drops.items():
        table.add_row(f"left out: {reason}", f"{count:,}")
    for stage, spent in seconds.items():
        table.add_row(f"seconds: {stage}", f"{spent:,.1f}")
    return table
