"""Parts made by actors of a Ray cluster: as many machines as it has, and the same files as of one process.

Each part is a task of its own, and its result is its file. What a dead actor was at is made anew by another.
"""

import logging
import os
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from rlaifv_pl.feedback.chunks import Chunks, Rows
from rlaifv_pl.feedback.engines.engine import EngineError

ALONE = {"include_dashboard": False}
"""How Ray is started on this machine for one command."""

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
"""Ray neither reports its use nor talks about itself."""


@dataclass(frozen=True, kw_only=True)
class RayExecutor:
    """Actors that hold the models of a stage and make its parts, wherever Ray puts them.

    Prompts, models and the directory to write are named by paths, which must be the same on all machines, as must the
    packages that are installed there: another version of one may write other last digits.

    Args:
        address: `auto` for the cluster that this machine belongs to, `ray://HOST:PORT` or `HOST:PORT` for one
            elsewhere; null starts Ray here, for this command alone.
        actors: as many parts are made at once.
        gpus_per_actor: what its models need at the same time, such as an engine's `tensor_parallel_size`; 0 for
            models on the CPU or behind servers.
        cpus_per_actor: to read images and run models on.

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
    def leads(self) -> bool:
        """Always: the actors only make parts."""
        return True

    def numbers(self, parts: Chunks) -> range:
        """All of them."""
        return range(len(parts.slices))

    def make(self, parts: Chunks, rows: Rows) -> Iterator[int]:
        """As `Executor.make`, in the order in which they are done.

        Raises:
            EngineError: Ray is not installed or cannot be reached, or the cluster has no room for the actors.
        """
        missing = []
        for number in self.numbers(parts):
            if parts.is_finished(number):
                yield len(parts.slices[number])
            else:
                missing.append(number)
        if missing:
            yield from self._sent_for(parts, rows, missing)

    def _sent_for(self, parts: Chunks, rows: Rows, missing: list[int]) -> Iterator[int]:
        ray = self._connected()
        many = min(self.actors, len(missing))
        self._check_room(ray.cluster_resources(), many)
        work = ray.data.from_items(
            [{"number": number} for number in missing], override_num_blocks=len(missing)
        )
        made = work.map_batches(
            RayWorker,
            fn_constructor_args=(parts, rows, Path.cwd()),
            batch_size=1,
            # A part takes minutes: whoever is done takes the next one, and nobody has two.
            compute=ray.data.ActorPoolStrategy(size=many, max_tasks_in_flight_per_actor=1),
            num_gpus=self.gpus_per_actor,
            num_cpus=self.cpus_per_actor,
        )
        for row in made.iter_rows():
            if row["fault"]:
                raise ray.cloudpickle.loads(row["fault"])
            yield len(parts.slices[row["number"]])

    def _connected(self, **more: Any) -> Any:
        """Ray, once it is connected and quiet; `more` is for its start."""
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
            own = (ALONE if self.address is None else {}) | more
            try:
                # `local`, since without an address Ray would join a cluster that it finds on this machine, or that
                # RAY_ADDRESS names.
                ray.init(self.address or "local", logging_level=logging.ERROR, log_to_driver=False, **own)
            except (ConnectionError, OSError, RuntimeError, ValueError) as error:
                raise EngineError(
                    f"ray.address: expected a Ray cluster at {self.address or 'this machine'}, but {error}. Start it "
                    "with `ray start --head` on one machine and `ray start --address HOST:6379` on the others."
                ) from error
            told = ray.get_runtime_context().gcs_address
            where = f"the cluster at {told}" if self.address else f"a Ray of its own at {told}"
            Console(stderr=True).print(f"ray: parts are made by {where}", soft_wrap=True)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        return ray

    def _check_room(self, there: dict[str, float], many: int) -> None:
        """Ray would wait for ever."""
        for kind, each in (("GPU", self.gpus_per_actor), ("CPU", self.cpus_per_actor)):
            if many * each > there.get(kind, 0):
                raise EngineError(
                    f"ray: {many} actors of {each:g} {kind}s need {many * each:g}, and the cluster has "
                    f"{there.get(kind, 0):g}. Lower ray.actors or ray.{kind.lower()}s_per_actor, or add machines."
                )


class RayWorker:
    """One actor: the models of a stage, loaded with the first part that it makes.

    Args:
        parts: of the stage.
        rows: what a part holds.
        directory: against which paths are read, as by the command that sent for it.
    """

    def __init__(self, parts: Chunks, rows: Rows, directory: Path) -> None:
        self.parts, self.rows, self.directory = parts, rows, directory

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Make the part of that number; what goes wrong is handed back, since only a death is worth a repetition."""
        number, fault = int(batch["number"][0]), b""
        try:
            os.chdir(self.directory)
            self.parts.make_one(number, self.rows)
        except Exception as error:
            fault = _portable(error)
        return {"number": [number], "fault": [fault]}


def _portable(error: Exception) -> bytes:
    """The error to be raised elsewhere; by its words alone where it cannot be put together again."""
    from ray import cloudpickle

    try:
        cloudpickle.loads(raw := cloudpickle.dumps(error))
    except Exception:
        return cloudpickle.dumps(EngineError(f"{type(error).__name__}: {error}"))
    return raw
