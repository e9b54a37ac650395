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
    **executor_options: Any,
) -> Manifest:
    """Let a policy answer prompts, judge the answers claim by claim, and pair them.

    Killed anywhere, the same command continues where it was. Several processes share the work if a launcher starts
    them: `torchrun --nproc-per-node 8 --no-python rlaifv feedback ...`. With `--engine ray` the actors of a cluster
    do it.

    Args:
        prompts: shard directory, or several, also as URLs, which are copied to the cache first (RLAIFV_PL_CACHE);
            only the prompt and the images of a sample are used.
        out: directory of the preference shards to write.
        policy: the model that answers.
        feedback: settings that turn answers into pairs.
        seed: decides all draws.
        limit: number of prompts to answer, the first ones; all unless given.
        executor_options: options of `choose_executor`.

    Raises:
        EngineError: no pair was made, or one of the reasons of `FeedbackPipeline.make`.
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
        executor=choose_executor(**executor_options),
        clock=seconds.__setitem__,
    )
    manifest = run.make()
    if run.executor.is_main_process:
        Console(stderr=True).print(_table(manifest, seconds, out))
        if not manifest.samples:
            raise EngineError(
                f"No pair was made of {manifest.notes['prompts']} prompts. {remedies(manifest.drops)}"
            )
    return manifest


def choose_executor(engine: Literal["local", "ray"] = "local", ray: RayExecutor | None = None) -> Executor:
    """Return the executor of the stages.

    Args:
        engine: `local` for this process, or those that a launcher started; `ray` for actors of a Ray cluster.
        ray: the cluster, and number and size of the actors; one actor on this machine unless given.

    Raises:
        EngineError: a launcher and Ray exclude each other, or Ray's options come without `engine: ray`.
    """
    share = RankShare.from_launcher()
    if engine == "local":
        if ray is not None:
            raise EngineError(
                "ray: these are options of `engine: ray`, and engine is `local`. Set one of them."
            )
        return share
    if share.world_size > 1:
        raise EngineError(
            f"engine: ray starts its own processes, and a launcher started {share.world_size} of this command. "
            "Start it once, without torchrun or srun, and set ray.actors."
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
    for stage, elapsed in seconds.items():
        table.add_row(f"seconds: {stage}", f"{elapsed:,.1f}")
    return table
