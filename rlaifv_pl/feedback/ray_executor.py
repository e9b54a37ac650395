"""Chunks made by actors of a Ray cluster, on all of its machines, with the same files as of one process.

Each chunk is a task, and its result is its file. The chunk of a dead actor is made again by another.
"""

import logging
import os
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaifv_pl.console import stderr
from rlaifv_pl.feedback.chunks import Chunks, Rows
from rlaifv_pl.feedback.engines.engine import EngineError

ALONE = {"include_dashboard": False}
"""Options of `ray.init` for a Ray that runs on this machine during one command."""

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
"""Environment variables that turn off Ray's usage reports and its log."""


@dataclass(frozen=True, kw_only=True)
class RayExecutor:
    """Executor whose actors hold the models of a stage, wherever Ray places them.

    Paths of prompts, models and output must be the same on all machines, as must the installed packages: another
    version may write other last digits.

    Args:
        address: `auto` for the cluster that this machine belongs to, `ray://HOST:PORT` or `HOST:PORT` for another;
            null starts Ray on this machine, for this command alone.
        actors: number of chunks that are made at once.
        gpus_per_actor: GPUs that an actor's models need, such as an engine's `tensor_parallel_size`; 0 for models on
            the CPU or behind servers.
        cpus_per_actor: CPU cores for reading images and running models.

    Raises:
        ValueError: a setting that makes no sense.
    """

    address: str | None = None
    actors: int = 1
    gpus_per_actor: float = 1.0
    cpus_per_actor: float = 1.0

    def __post_init__(self) -> None:
        if self.actors < 1 or self.gpus_per_actor < 0 or self.cpus_per_actor <= 0:
            raise ValueError(
                "ray.actors must be at least 1, ray.gpus_per_actor not negative and ray.cpus_per_actor positive; got "
                f"{self.actors}, {self.gpus_per_actor:g} and {self.cpus_per_actor:g}."
            )

    @property
    def is_main_process(self) -> bool:
        """True: the actors make chunks and nothing else."""
        return True

    def numbers(self, chunks: Chunks) -> range:
        """Return the numbers of all chunks."""
        return range(len(chunks.slices))

    def make(self, chunks: Chunks, rows: Rows) -> Iterator[int]:
        """Make the missing chunks; yield the number of records of each, in the order in which they are done.

        Raises:
            EngineError: Ray is not installed or cannot be reached, or the cluster has no room for the actors.
        """
        missing = []
        for number in self.numbers(chunks):
            if chunks.is_finished(number):
                yield len(chunks.slices[number])
            else:
                missing.append(number)
        if missing:
            yield from self._make_by_actors(chunks, rows, missing)

    def _make_by_actors(self, chunks: Chunks, rows: Rows, missing: list[int]) -> Iterator[int]:
        ray = self._connect()
        num_actors = min(self.actors, len(missing))
        self._check_resources(ray.cluster_resources(), num_actors)
        work = ray.data.from_items(
            [{"number": number} for number in missing], override_num_blocks=len(missing)
        )
        made = work.map_batches(
            RayWorker,
            fn_constructor_args=(chunks, rows, Path.cwd()),
            batch_size=1,
            # A chunk takes minutes: an actor that is done takes the next one, and none holds two.
            compute=ray.data.ActorPoolStrategy(size=num_actors, max_tasks_in_flight_per_actor=1),
            num_gpus=self.gpus_per_actor,
            num_cpus=self.cpus_per_actor,
        )
        for row in made.iter_rows():
            if row["fault"]:
                raise ray.cloudpickle.loads(row["fault"])
            yield len(chunks.slices[row["number"]])

    def _connect(self, **options: Any) -> Any:
        """Return the module `ray`, connected and quiet; `options` are more of `ray.init`'s."""
        # Ray's ports are open to the network, and whoever may talk to it may run code. This one is ours alone. Ray
        # reads this when it is imported: a notebook that did so before has said by itself whom it lets in.
        alone = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        for name, value in (
            QUIET | (alone if self.address is None and "ray" not in sys.modules else {})
        ).items():
            os.environ.setdefault(name, value)
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise EngineError('Actors need the ray package: pip install "rlaifv-pl[ray]"') from error
        if not ray.is_initialized():
            own = (ALONE if self.address is None else {}) | options
            try:
                # `local`, since without an address Ray would join a cluster that it finds on this machine, or that
                # RAY_ADDRESS names.
                ray.init(self.address or "local", logging_level=logging.ERROR, log_to_driver=False, **own)
            except (ConnectionError, OSError, RuntimeError, ValueError) as error:
                raise EngineError(
                    f"ray.address: expected a Ray cluster at {self.address or 'this machine'}, but {error}. Start it "
                    "with `ray start --head` on one machine and `ray start --address HOST:6379` on the others."
                ) from error
            address = ray.get_runtime_context().gcs_address
            where = f"the cluster at {address}" if self.address else f"a Ray of its own at {address}"
            stderr.print(f"ray: chunks are made by {where}", soft_wrap=True)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        return ray

    def _check_resources(self, available: dict[str, float], num_actors: int) -> None:
        """Refuse more actors than fit: Ray would wait for room forever."""
        for kind, each in (("GPU", self.gpus_per_actor), ("CPU", self.cpus_per_actor)):
            if num_actors * each > available.get(kind, 0):
                raise EngineError(
                    f"ray: {num_actors} actors of {each:g} {kind}s need {num_actors * each:g}, and the cluster has "
                    f"{available.get(kind, 0):g}. Lower ray.actors or ray.{kind.lower()}s_per_actor, or add machines."
                )


class RayWorker:
    """An actor, whose models are loaded with the first chunk that it makes.

    Args:
        chunks: of the stage.
        rows: computes the rows of a chunk.
        directory: working directory of the command, against which paths are read.
    """

    def __init__(self, chunks: Chunks, rows: Rows, directory: Path) -> None:
        self.chunks, self.rows, self.directory = chunks, rows, directory

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Make the chunk of a number; an error is returned, since Ray would repeat the task if it were raised."""
        number, fault = int(batch["number"][0]), b""
        try:
            os.chdir(self.directory)
            self.chunks.make_one(number, self.rows)
        except Exception as error:
            fault = _pickle_error(error)
        return {"number": [number], "fault": [fault]}


def _pickle_error(error: Exception) -> bytes:
    """Pickle an error for another process; by its message alone where it cannot be restored."""
    from ray import cloudpickle

    try:
        cloudpickle.loads(pickled := cloudpickle.dumps(error))
    except Exception:
        return cloudpickle.dumps(EngineError(f"{type(error).__name__}: {error}"))
    return pickled
