"""Validation by benchmarks: during training, the policy answers held-out items, scored as by `rlaifv evaluate`.

Figures of a step depend on the policy and on files alone and do not affect training: a run that is killed, or evaluated
more often, ends with the same weights.
"""

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.seed import isolate_rng

from rlaifv_pl.console import stderr
from rlaifv_pl.evaluation.benchmark import Benchmark
from rlaifv_pl.evaluation.benchmark_files import BenchmarkError
from rlaifv_pl.evaluation.benchmarks import BENCHMARKS, BenchmarkFiles, check_rules
from rlaifv_pl.evaluation.chair.forms import Variant
from rlaifv_pl.evaluation.responder import PARTS_SUFFIX, PROMPT, Responder, answer_benchmark, build_prompts
from rlaifv_pl.evaluation.table_metric import compute_figures
from rlaifv_pl.feedback.chunks import RankShare
from rlaifv_pl.feedback.engines.in_memory import InMemoryEngine
from rlaifv_pl.lightning_compat import is_accumulating, is_last_batch
from rlaifv_pl.models.chat import Chat
from rlaifv_pl.models.sharding import gather_parameters
from rlaifv_pl.objectives.base import AlignmentModule
from rlaifv_pl.training.held_out_figures import FOLDER, Figures, FiguresFile, figures_table

MAIN_FIGURES = {
    "chair": "CHAIRi",
    "amber": "AMBER",
    "pope": "f1",
    "mmstar": "final",
    "mme": "perception",
    "hallusionbench": "aAcc",
    "vqa": "accuracy",
}
"""The figure of each metric that the progress bar shows."""


@dataclass(frozen=True, kw_only=True)
class HeldOutBenchmark:
    """A benchmark that evaluates a run.

    Args:
        metric: as of `rlaifv evaluate`.
        ground_truth: official files, as of `rlaifv respond`, which hold the prompts.
        variant: for chair: A or C.
        similarity: for amber: file with two words and their cosine on each line.
        images: directory of its images; the common one if None.
        limit: number of items, from the first on; all if None.
        max_new_tokens: longest completion in tokens; the common limit if None.
        prompt_template: text that is asked; {prompt} stands for the benchmark's own prompt.
    """

    metric: Literal["chair", "amber", "pope", "mmstar", "mme", "hallusionbench", "vqa"]
    ground_truth: str
    variant: Variant | None = None
    similarity: str | None = None
    images: str | None = None
    limit: int | None = None
    max_new_tokens: int | None = None
    prompt_template: str = PROMPT

    def __post_init__(self) -> None:
        if min(1 if one is None else one for one in (self.limit, self.max_new_tokens)) < 1:
            raise ValueError(
                f"limit and max_new_tokens must be at least 1, got {self.limit} and {self.max_new_tokens}; leave the "
                "limit out for all items"
            )

    def to_json(self) -> dict[str, Any]:
        """Return the settings as the file of figures keeps them, where prompt_template is named `wording`."""
        return {
            "wording" if name == "prompt_template" else name: value for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "HeldOutBenchmark":
        """Return the settings of an entry of the file of figures."""
        known = {"prompt_template" if name == "wording" else name: value for name, value in entry.items()}
        return cls(**{field.name: known[field.name] for field in fields(cls) if field.name in known})

    def open(self) -> Benchmark:
        """Open the benchmark, and read its annotations.

        Raises:
            BenchmarkError: a file is invalid, or a rule is missing or superfluous.
        """
        check_rules(self.metric, self.variant, self.similarity)
        path, similarity = Path(self.ground_truth), self.similarity and Path(self.similarity)
        files = BenchmarkFiles(
            responses=path, ground_truth=path, variant=self.variant, similarity=similarity or None
        )
        return BENCHMARKS[self.metric].open(files)


class HeldOutEvaluation(Callback):
    """Evaluates the policy on held-out items: before the first step, every n steps, and at the end.

    Figures are logged as `held_out/<benchmark>/<figure>`, and kept with the responses in `<run>/held_out`.

    Args:
        benchmarks: benchmarks by names of your own: of hallucination, and of abilities that alignment may cost. None
            to evaluate nothing.
        images: directory of their images.
        every_n_steps: optimiser updates between evaluations; 0 for the start and the end only.
        max_new_tokens: longest completion in tokens.
        batch_size: number of items that are answered at a time.
    """

    def __init__(
        self,
        benchmarks: dict[str, HeldOutBenchmark] | None = None,
        images: str | None = None,
        every_n_steps: int = 0,
        max_new_tokens: int = 512,
        batch_size: int = 16,
    ) -> None:
        if images is not None and not benchmarks:
            raise ValueError("held_out.images is set, but no held_out.benchmarks: name some, or leave it out")
        if every_n_steps < 0 or min(max_new_tokens, batch_size) < 1:
            raise ValueError(
                "held_out: expected every_n_steps >= 0, max_new_tokens >= 1 and batch_size >= 1, got "
                f"{every_n_steps}, {max_new_tokens} and {batch_size}"
            )
        self.benchmarks = {
            name: _completed(name, one, images, max_new_tokens) for name, one in (benchmarks or {}).items()
        }
        self.every_n_steps, self.batch_size, self.max_new_tokens = every_n_steps, batch_size, max_new_tokens
        self.step: int | None = None
        """Step of `values`."""
        self.values: dict[str, float] = {}
        """Latest figures by the names under which they are logged; nan for an undefined one."""
        self._opened: dict[str, Benchmark] = {}

    @property
    def names(self) -> list[str]:
        """Names under which figures are logged."""
        return [
            *_logged({name: compute_figures(benchmark, {})[1] for name, benchmark in self._opened.items()})
        ]

    def setup(self, trainer: Trainer, pl_module: AlignmentModule, stage: str) -> None:
        """Read the benchmarks and look for their images, before anything is trained.

        Raises:
            BenchmarkError: a file is invalid, or an image is missing.
        """
        if stage != "fit" or self._opened:
            return
        self.directory = Path(trainer.default_root_dir) / FOLDER
        self.file = FiguresFile(self.directory, writes=trainer.is_global_zero)
        for name, settings in self.benchmarks.items():
            try:
                benchmark = settings.open()
                build_prompts(
                    benchmark.items[: settings.limit], settings.images or "", settings.prompt_template
                )
            except BenchmarkError as error:
                raise BenchmarkError(f"held_out.benchmarks.{name}: {error}") from error
            self._opened[name] = benchmark

    def on_train_start(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        step = trainer.global_step
        self.file.begin(step, {name: one.to_json() for name, one in self.benchmarks.items()})
        entries = trainer.strategy.broadcast(self.file.read())
        if step == 0 or not all(entries[name]["steps"] for name in self.benchmarks):
            self._evaluate(trainer, pl_module)
        else:
            latest = {name: entries[name]["steps"][-1] for name in self.benchmarks}
            self.values = _logged({name: one["figures"] for name, one in latest.items()})
            self._show(trainer)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        # The table has been resumed where the checkpoint was, and takes rows from now on.
        if self._is_unlogged:
            self._log(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: AlignmentModule, *_: Any) -> None:
        step = trainer.global_step
        if is_accumulating(trainer) or step == self.step:
            return
        is_last_epoch = trainer.current_epoch + 1 == trainer.max_epochs
        is_over = (is_last_epoch and is_last_batch(trainer)) or 0 <= trainer.max_steps <= step
        if is_over or (self.every_n_steps and step % self.every_n_steps == 0):
            self._evaluate(trainer, pl_module)
            self._log(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        # A run may end before its last step, by a timer or a round with too few pairs.
        if self.step != trainer.global_step:
            self._evaluate(trainer, pl_module)
            self._log(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        """Print the table of figures, and remove files that only an unfinished run needs."""
        if trainer.is_global_zero:
            for parts in self.directory.glob(f"*/*{PARTS_SUFFIX}"):
                shutil.rmtree(parts)
            stderr.print(figures_table(self.file.read()))

    def _evaluate(self, trainer: Trainer, module: AlignmentModule) -> None:
        """Evaluate the policy as it is now; answers that are on disk are reused."""
        share, measured = RankShare(trainer.global_rank, trainer.world_size), {}
        context = trainer.strategy.precision_plugin.forward_context
        with isolate_rng(), gather_parameters(module.policy):
            engine = InMemoryEngine(module.policy, Chat(module.processor), self.batch_size, context=context)
            for name, settings in self.benchmarks.items():
                benchmark = self._opened[name]
                out = responses_path(self.directory, name, settings.metric, trainer.global_step)
                if answer_benchmark(benchmark, self._responder(settings, engine), out, share):
                    figures = compute_figures(benchmark, benchmark.read(out))[1]
                    # No item that was asked is missing.
                    measured[name] = {key: value for key, value in figures.items() if key != "n_missing"}
        measured = trainer.strategy.broadcast(measured)
        self.file.note(trainer.global_step, measured)
        self.step, self.values, self._is_unlogged = trainer.global_step, _logged(measured), True
        self._show(trainer)

    def _responder(self, settings: HeldOutBenchmark, engine: InMemoryEngine) -> Responder:
        return Responder(
            images=settings.images or "",  # `_completed` has set it.
            engine=engine,
            batch_size=self.batch_size,
            max_new_tokens=settings.max_new_tokens or self.max_new_tokens,
            prompt_template=settings.prompt_template,
            limit=settings.limit,
        )

    def _show(self, trainer: Trainer) -> None:
        """Show figures to other callbacks and on the progress bar."""
        trainer.callback_metrics.update(
            {name: torch.tensor(value, dtype=torch.float64) for name, value in self.values.items()}
        )
        main = {f"{FOLDER}/{name}/{MAIN_FIGURES[one.metric]}" for name, one in self.benchmarks.items()}
        trainer.progress_bar_metrics.update({name: self.values[name] for name in main if name in self.values})

    def _log(self, trainer: Trainer) -> None:
        """Log the figures at the step of the update that made the policy, counted from 0."""
        self._is_unlogged = False
        for logger in trainer.loggers:
            logger.log_metrics(self.values, step=max(0, (self.step or 0) - 1))

    _is_unlogged = False


def responses_path(directory: Path, name: str, metric: str, step: int) -> Path:
    """Path of the responses of a step.

    >>> str(responses_path(Path("runs/dpo/held_out"), "objects", "pope", 40))
    'runs/dpo/held_out/objects/00000040.jsonl'
    """
    return directory / name / f"{step:08d}{BENCHMARKS[metric].suffix}"


def _completed(name: str, one: HeldOutBenchmark, images: str | None, max_new_tokens: int) -> HeldOutBenchmark:
    """Fill in the common settings where a benchmark has none of its own."""
    if not name or name != Path(name).name or name.startswith("."):
        raise ValueError(f"held_out.benchmarks: expected names that are valid directory names, got {name!r}")
    if one.images is None and images is None:
        raise ValueError(f"held_out.benchmarks.{name} has no images: set held_out.images, or its own")
    return replace(one, images=one.images or images, max_new_tokens=one.max_new_tokens or max_new_tokens)


def _logged(figures: Mapping[str, Figures]) -> dict[str, float]:
    """Figures by the names under which they are logged, without counts of items."""
    return {
        f"{FOLDER}/{name}/{figure}": math.nan if value is None else float(value)
        for name, own in figures.items()
        for figure, value in own.items()
        if figure not in ("n", "n_missing")
    }
