"""The rounds of a run: the policy's own answers become shards, training on them makes the next policy, and again.

A round's work is done between epochs, in `Rounds.on_epoch_boundary`; the DataModule is then told which shards to load.
Nothing that lies in a round's directory is made again. What a run does next depends on its checkpoint and on these
files alone, so a killed run goes on where it was.
"""

import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from rlaifv_pl.console import stderr
from rlaifv_pl.data.datamodule import Shards
from rlaifv_pl.data.lightning_utils import get_datamodule
from rlaifv_pl.data.manifest import read_manifest
from rlaifv_pl.feedback.config import FeedbackConfig
from rlaifv_pl.feedback.corrections.pipeline import Corrector
from rlaifv_pl.lightning_compat import EpochBoundaryCallback, is_last_batch
from rlaifv_pl.models.sharding import gather_parameters
from rlaifv_pl.objectives.base import AlignmentModule, RunError
from rlaifv_pl.rounds.compatibility import check_rounds
from rlaifv_pl.rounds.evaluator import RoundEvaluator
from rlaifv_pl.rounds.ledger import Ledger
from rlaifv_pl.rounds.reference_file import ReferenceFiles, Refresh
from rlaifv_pl.rounds.round_shards import RoundShards
from rlaifv_pl.rounds.summary import write_summary
from rlaifv_pl.seeds import run_seed


class Rounds(EpochBoundaryCallback):
    """Makes each round's shards from the policy as it is when the round begins, and trains on them.

    The number of rounds is `trainer.max_epochs / epochs`. Leave `data.train` out: the shards are those in
    `<run>/rounds/<number>`, counted from 1.

    Args:
        prompts: shards of the prompts that the policy answers, also as URLs; each round gets its own. A config
            without it has no rounds.
        feedback: how answers become pairs; needed with `prompts`.
        epochs: number of training epochs in a round.
        prompts_per_round: number of prompts that are answered in a round; equal shares of all prompts if None.
        repeat_prompts: answer prompts of earlier rounds again when no others are left, as in a prolonged run.
        refresh: source of a round's reference: the policy as the round began (`previous`) or as the run began
            (`initial`), or a moving average of the references so far (`ema`).
        ema_decay: weight of the last round's reference in the next one, for `ema`.
        reset_optimizer: begin every round with a fresh optimiser and schedule; otherwise both span the whole run.
        replay: number of earlier rounds whose shards are trained on again.
        min_pairs: a later round with fewer pairs (that have corrections, with `corrector`) ends the run untrained.
        corrector: turns pairs into corrective dialogues, for nSFT.
        evaluator: measures policy and labeler between the rounds.
        batch_size: number of candidates that are sampled at a time.
    """

    def __init__(
        self,
        prompts: Shards | None = None,
        feedback: FeedbackConfig | None = None,
        epochs: int = 1,
        prompts_per_round: int | None = None,
        refresh: Refresh = "previous",
        ema_decay: float = 0.5,
        reset_optimizer: bool = True,
        replay: int = 0,
        min_pairs: int = 1,
        corrector: Corrector | None = None,
        evaluator: RoundEvaluator | None = None,
        batch_size: int = 64,
        repeat_prompts: bool = False,
    ) -> None:
        if (prompts is None) != (feedback is None):
            raise ValueError("rounds: prompts and feedback go together; set both, or neither for no rounds")
        if epochs < 1 or min_pairs < 1 or replay < 0 or not 0 <= ema_decay < 1:
            raise ValueError(
                f"rounds: expected epochs >= 1, min_pairs >= 1, replay >= 0 and ema_decay in [0, 1), got {epochs}, "
                f"{min_pairs}, {replay} and {ema_decay}"
            )
        self.prompts, self.feedback, self.epochs = prompts, feedback, epochs
        self.prompts_per_round, self.refresh, self.ema_decay = prompts_per_round, refresh, ema_decay
        self.reset_optimizer, self.replay, self.min_pairs = reset_optimizer, replay, min_pairs
        self.corrector, self.evaluator, self.batch_size = corrector, evaluator, batch_size
        self.repeat_prompts, self._schedule_start = repeat_prompts, 0
        self._is_cut = False
        """Whether the run ended within an epoch."""

    def setup(self, trainer: Trainer, pl_module: AlignmentModule, stage: str) -> None:
        """Open the prompts, and take the place of `data.train`.

        Raises:
            RunError: as `check_rounds`.
        """
        if stage != "fit" or self.prompts is None or self.feedback is None:
            return
        check_rounds(trainer, pl_module, self.epochs, self.refresh)
        self._run_started, self._prepared = time.monotonic(), 0
        directory, writes = Path(trainer.default_root_dir) / "rounds", trainer.global_rank == 0
        self.ledger = Ledger(directory, writes=writes)
        self._references = ReferenceFiles(directory, self.refresh, self.ema_decay, writes=writes)
        self._shards = RoundShards(self, self.feedback, trainer, pl_module, self.ledger)
        get_datamodule(trainer).use_shards([])
        pl_module.schedule_epochs = self.epochs if self.reset_optimizer else None

    def on_epoch_boundary(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        """Make the shards of a round that begins, or take up the one that a resumed run is in."""
        is_start = not self._prepared
        if is_start or not self._is_over(trainer):
            self._prepare(trainer.current_epoch)
            if not is_start:
                self._stop_without_pairs(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        pl_module.schedule_start = self._schedule_start
        # Only now does the trainer count an epoch at whose end the checkpoint was saved; and it calls the hooks of a
        # run's end only after this one.
        if not self._is_over(trainer):
            self._prepare(trainer.current_epoch)
            self._stop_without_pairs(trainer)
        self._epoch_started = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        self._epoch_started = time.monotonic()
        # Not called for an epoch that a resumed run finds half done.
        if self.reset_optimizer and trainer.current_epoch % self.epochs == 0:
            self._schedule_start = pl_module.schedule_start = trainer.global_step
            for optimizer in trainer.optimizers:
                optimizer.state.clear()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        number = trainer.current_epoch // self.epochs + 1
        self.ledger.spend(number, "train", time.monotonic() - self._epoch_started)
        self._is_cut = not is_last_batch(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        # Within a round that is to go on, it would be taken for the round's own.
        if not self._is_cut:
            with gather_parameters(pl_module.policy):
                self._shards.measure(trainer.current_epoch // self.epochs)
        if trainer.is_global_zero:
            write_summary(
                Path(trainer.default_root_dir), self.ledger, run_seed(), time.monotonic() - self._run_started
            )

    def state_dict(self) -> dict[str, Any]:
        return {"schedule_start": self._schedule_start}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._schedule_start = state_dict["schedule_start"]

    def _is_over(self, trainer: Trainer) -> bool:
        has_all_steps = 0 <= trainer.max_steps <= trainer.global_step
        return trainer.should_stop or has_all_steps or trainer.current_epoch >= self._shards.max_epochs

    def _prepare(self, epoch: int) -> None:
        """Make or resume the round that an epoch belongs to, and give its shards to the DataModule."""
        number = epoch // self.epochs + 1
        if self._prepared == number:
            return
        data = get_datamodule(self._shards.trainer)
        is_begun = epoch % self.epochs > 0 or data.is_inside(epoch)
        (self._resume if is_begun else self._begin)(number)
        self._prepared = number
        data.use_shards([self._shards.path(each) for each in range(max(1, number - self.replay), number + 1)])

    def _begin(self, number: int) -> None:
        module = self._shards.module
        if module.reference is not None:
            self._references.begin(number, module.reference, module.policy)
        if module.cached is not None and number > 1 and self.refresh == "previous":
            module.cached.invalidate()
        with gather_parameters(module.policy):
            pipeline, manifest = self._shards.make(number)
        count = self._shards.count(number)
        if number == 1 and count < self.min_pairs:
            dropped = {**manifest.drops, **read_manifest(self._shards.path(number)).drops}
            raise RunError(
                f"Round 1 made {count} {self._kind} of {len(pipeline.prompts.numbers)} prompts, fewer than min_pairs "
                f"({self.min_pairs}); left out were {dropped}. Sample more candidates, at a higher "
                "temperature, or loosen feedback.pairing."
            )
        self._shards.trainer.strategy.barrier()

    def _resume(self, number: int) -> None:
        """Resume a round that has begun to train; the policy is no longer the one that made its shards."""
        if not self._shards.are_as_configured(number):
            raise RunError(
                f"{self._shards.pairs(number)} was made with other settings of feedback, prompts, corrections or seed, "
                "or is missing, and the policy that this run goes on with has been trained since. Resume with the "
                "settings of the run's config.yaml, or start a new run in another trainer.default_root_dir."
            )
        self.ledger.resume(number)
        if (reference := self._shards.module.reference) is not None:
            self._references.resume(number, reference)

    def _stop_without_pairs(self, trainer: Trainer) -> None:
        """End the run at the beginning of a later round with too few pairs."""
        number = self._prepared
        if number == 1 or trainer.current_epoch % self.epochs:
            return
        if (count := self._shards.count(number)) < self.min_pairs:
            trainer.should_stop = True
            if trainer.is_global_zero:
                stderr.print(
                    f"Round {number} made {count} {self._kind}, fewer than min_pairs ({self.min_pairs}): "
                    "the run ends here."
                )

    @property
    def _kind(self) -> str:
        return "pairs with corrections" if self.corrector else "pairs"
