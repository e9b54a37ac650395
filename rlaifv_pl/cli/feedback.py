"""`rlaifv feedback`: preference shards of a policy's own answers, outside of any run."""

from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from rlaifv_pl.data.manifest import Manifest
from rlaifv_pl.data.shards import load_shards
from rlaifv_pl.feedback.chunks import Executor, RankShare
from rlaifv_pl.feedback.config import FeedbackConfig, PromptSet
from rlaifv_pl.feedback.engines.engine import Engine, EngineError
from rlaifv_pl.feedback.pipeline import FeedbackPipeline
from rlaifv_pl.feedback.ray_executor import RayExecutor
from rlaifv_pl.feedback.reasons import remedies


def make(
    prompts: list[str] | str,
    out: str,
    policy: Engine,
    feedback: FeedbackConfig,
    seed: int = 0,
    limit: int | None = None,
    **makers: Any,
) -> Manifest:
    """Let a policy answer prompts, judge the answers claim by claim, and pair them.

    Killed anywhere, the same command goes on where it was. Several processes share the work when a launcher
    starts them: `torchrun --nproc-per-node 8 --no-python rlaifv feedback ...`. With `--engine ray` the actors of a
    cluster do it.

    Args:
        prompts: shard directory, or several, also as URLs, which are copied to the cache first (RLAIFV_PL_CACHE);
            of each sample only the prompt and the images count.
        out: directory of the preference shards to write.
        policy: the model that answers.
        feedback: how its answers become pairs.
        seed: decides all draws.
        limit: answer only the first so many prompts.
        makers: as `who_makes`.

    Raises:
        EngineError: as `FeedbackPipeline.make`; no pair was made.
    """
    shards = load_shards(prompts)
    numbers = range(len(shards) if limit is None else min(limit, len(shards)))
    seconds: dict[str, float] = {}
    run = FeedbackPipeline(
        feedback=feedback,
        policy=policy,
        prompts=PromptSet(shards, numbers),
        out=Path(out),
        seed=seed,
        makers=who_makes(**makers),
        clock=seconds.__setitem__,
    )
    manifest = run.make()
    if run.makers.leads:
        Console(stderr=True).print(_table(manifest, seconds, out))
        if not manifest.samples:
            raise EngineError(
                f"No pair was made of {manifest.notes['prompts']} prompts. {remedies(manifest.drops)}"
            )
    return manifest


def who_makes(engine: Literal["here", "ray"] = "here", ray: RayExecutor | None = None) -> Executor:
    """Who makes the parts of each stage.

    Args:
        engine: `here` in this process, or in those that a launcher started; `ray` by actors of a Ray cluster.
        ray: the cluster, and how many actors of which size; one actor on this machine unless given.

    Raises:
        EngineError: both a launcher and Ray are to share out the work, or neither Ray nor its options are meant.
    """
    share = RankShare.of_launcher()
    if engine == "here":
        if ray is not None:
            raise EngineError(
                "ray: these are options of `engine: ray`, and engine is `here`. Set one of them."
            )
        return share
    if share.of > 1:
        raise EngineError(
            f"engine: ray starts its own processes, and a launcher started {share.of} of this command. Start it once, "
            "without torchrun or srun, and set ray.actors."
        )
    return ray or RayExecutor()


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
