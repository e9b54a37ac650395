"""The loop: the policy's own answers become shards, training on them makes the next policy, and again.

A round is known by what lies in its directory. Nothing that is there is made again, and what a run does
next depends on its checkpoint and on these files alone, so that a killed run goes on where it was.
"""

import time
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint

from rlaifv_pl.console import stderr
from rlaifv_pl.data.datamodule import Shards
from rlaifv_pl.data.lightning_utils import get_datamodule
from rlaifv_pl.data.manifest import MANIFEST_NAME, Manifest, hash_json, read_manifest
from rlaifv_pl.data.shard_writer import finished_manifest
from rlaifv_pl.data.shards import load_shards
from rlaifv_pl.feedback.chunks import RankShare, wait_for
from rlaifv_pl.feedback.config import FeedbackConfig, PromptSet
from rlaifv_pl.feedback.corrections.pipeline import Corrector, Writing, correct_shards
from rlaifv_pl.feedback.engines.in_memory import InMemoryEngine
from rlaifv_pl.feedback.pipeline import FeedbackPipeline
from rlaifv_pl.feedback.preconditions import check_keys
from rlaifv_pl.models.chat import Chat
from rlaifv_pl.models.sharding import gather_parameters
from rlaifv_pl.objectives.base import AlignmentModule, RunError
from rlaifv_pl.rounds.answers import keep_answers
from rlaifv_pl.rounds.compatibility import check_rounds
from rlaifv_pl.rounds.evaluator import RoundEvaluator, with_samples
from rlaifv_pl.rounds.ledger import Ledger
from rlaifv_pl.rounds.prompts import next_prompts, noted_prompts
from rlaifv_pl.rounds.reference_file import ReferenceFiles, Refresh
from rlaifv_pl.rounds.summary import conclude
from rlaifv_pl.seeds import derive, run_seed


class Rounds(Checkpoint):
    """Makes each round's shards from the policy as it is when the round begins, and trains on them.

    The number of rounds is `trainer.max_epochs / epochs`. Leave `data.train` out: the shards are those in
    `<run>/rounds/<number>`, counted from 1.

    Args:
        prompts: shards of the prompts that the policy answers, also as URLs; each round gets its own. A config
            without it has no rounds.
        feedback: how answers become pairs; needed with `prompts`.
        epochs: of training in a round.
        prompts_per_round: how many are answered in a round; all of them, in equal shares, unless given.
        repeat_prompts: answer prompts of earlier rounds again when there are no others, as of a run that is prolonged.
        refresh: what the policy is compared with in a round: as it was when the round began (`previous`), when the
            run began (`initial`), or a mean of the references so far (`ema`).
        ema_decay: of `ema`, the share of the last round's reference that stays.
        reset_optimizer: begin every round with a fresh optimiser and schedule; else both span the whole run.
        replay: earlier rounds whose shards are trained on again.
        min_pairs: a later round with fewer of them (that have corrections, with `corrector`) is not trained on, and
            ends the run.
        corrector: makes corrective dialogues of the pairs, for nSFT.
        evaluator: measures policy and labeler between the rounds.
        batch_size: candidates that are drawn at a time.
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
        """Take the place of `data.train`: from here on, the DataModule asks for the shards of an epoch.

        Raises:
            RunError: as `check_rounds`.
        """
        if stage != "fit":
            return
        check_rounds(trainer, pl_module, self.epochs, self.refresh)
        self._started, self._ready = time.monotonic(), 0
        self._trainer, self._module = trainer, pl_module
        self.directory = Path(trainer.default_root_dir) / "rounds"
        writes = trainer.global_rank == 0
        self.ledger = Ledger(self.directory, writes=writes)
        self._references = ReferenceFiles(self.directory, self.refresh, self.ema_decay, writes=writes)
        self._prompts = get_datamodule(trainer).fetch(self.prompts)
        get_datamodule(trainer).shards_of_epoch = self.shards_of_epoch
        pl_module.schedule_epochs = self.epochs if self.reset_optimizer else None

    def shards_of_epoch(self, epoch: int) -> list[str]:
        """Directories of the shards that an epoch trains on, made now unless they are there."""
        number = epoch // self.epochs + 1
        if self._ready != number:
            is_begun = epoch % self.epochs > 0 or get_datamodule(self._trainer).is_inside(epoch)
            (self._resume if is_begun else self._begin)(number)
            self._ready = number
        return [str(self._shards(earlier)) for earlier in range(max(1, number - self.replay), number + 1)]

    def on_train_start(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        self._epoch_started = time.monotonic()
        pl_module.schedule_start = self._schedule_start
        self._stop_without_pairs(trainer, trainer.current_epoch)

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
        self._is_cut = not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        self._stop_without_pairs(trainer, trainer.current_epoch + 1)

    def on_fit_end(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        # Within a round that is to go on, it would be taken for the round's own.
        if not self._is_cut:
            with gather_parameters(pl_module.policy):
                self._measure(trainer.current_epoch // self.epochs)
        if trainer.is_global_zero:
            conclude(
                Path(trainer.default_root_dir), self.ledger, run_seed(), time.monotonic() - self._started
            )

    def state_dict(self) -> dict[str, Any]:
        return {"schedule_start": self._schedule_start}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._schedule_start = state_dict["schedule_start"]

    def _begin(self, number: int) -> None:
        if self._module.reference is not None:
            self._references.begin(number, self._module.reference, self._module.policy)
        if self._module.cached is not None and number > 1 and self.refresh == "previous":
            self._module.cached.invalidate()
        with gather_parameters(self._module.policy):
            run, manifest = self._make(number)
        made = read_manifest(self._shards(number))
        if number == 1 and made.samples < self.min_pairs:
            dropped = {**manifest.drops, **made.drops}
            raise RunError(
                f"Round 1 made {made.samples} {self._kind} of {len(run.prompts.numbers)} prompts, fewer than min_pairs "
                f"({self.min_pairs}); left out were {dropped}. Sample more candidates, at a higher "
                "temperature, or loosen feedback.pairing."
            )
        self._trainer.strategy.barrier()

    def _make(self, number: int) -> tuple[FeedbackPipeline, Manifest]:
        """A round's shards; processes ask the policy for as much as each has to do."""
        run = self._feedback(number)
        self.ledger.begin(number, hash_json(run.recipe()), run.prompts.keys())
        self._measure(number - 1)
        run.make()
        self._trainer.strategy.barrier()  # Others may have found shards that the first process makes anew.
        manifest = read_manifest(self._pairs(number))
        if self.corrector is not None:
            self._make_corrections(number)
        self._note(number, manifest, run)
        return run, manifest

    def _resume(self, number: int) -> None:
        """Take up a round in whose midst the run was killed; the policy has been trained since it began."""
        if not self._is_as_configured(number):
            raise RunError(
                f"{self._pairs(number)} was made with other settings of feedback, prompts, corrections or seed, or is "
                "missing, and the policy that this run goes on with has been trained since. Resume with the settings "
                "of the run's config.yaml, or start a new run in another trainer.default_root_dir."
            )
        self.ledger.go_on(number)
        if self._module.reference is not None:
            self._references.resume(number, self._module.reference)

    def _is_as_configured(self, number: int) -> bool:
        wanted = {self._pairs(number): ("settings", self._feedback(number, begun=True).settings())}
        if self.corrector is not None:
            wanted[self._shards(number)] = ("correct", self.corrector.recipe())
        return all(
            (out / MANIFEST_NAME).is_file()
            and hash_json(read_manifest(out).recipe.get(name)) == hash_json(value)
            for out, (name, value) in wanted.items()
        )

    def _feedback(self, number: int, *, begun: bool = False) -> FeedbackPipeline:
        trainer = self._trainer
        return FeedbackPipeline(
            feedback=self.feedback,
            policy=self._engine(),
            prompts=self._draw_prompts(number, begun=begun),
            out=self._pairs(number),
            seed=derive(run_seed(), "round", number),
            round=number,
            executor=RankShare(trainer.global_rank, trainer.world_size),
            clock=partial(self.ledger.spend, number),
        )

    def _engine(self) -> InMemoryEngine:
        context = self._trainer.strategy.precision_plugin.forward_context
        chat = Chat(self._module.processor)
        return InMemoryEngine(self._module.policy, chat, self.batch_size, context=context)

    def _draw_prompts(self, number: int, *, begun: bool) -> PromptSet:
        shards = load_shards(self._prompts)
        check_keys(PromptSet(shards, range(len(shards))), self.feedback.pairing.max_pairs)
        noted = noted_prompts(shards, self.ledger.prompts(number)) if begun else None
        return noted or next_prompts(
            shards,
            self.ledger.prompts_before(number),
            derive(run_seed(), "prompts"),
            rounds=self._trainer.max_epochs // self.epochs - number + 1,
            many=self.prompts_per_round,
            repeat=self.repeat_prompts,
        )

    def _make_corrections(self, number: int) -> None:
        out = self._shards(number)
        if self._trainer.is_global_zero:
            started = time.monotonic()
            seed = derive(run_seed(), "correct", number)
            linked = self.feedback.link_duplicate_images
            pairs, how = str(self._pairs(number)), Writing(overwrite=True, link_duplicate_images=linked)
            correct_shards(pairs, out, self.corrector, seed, **how)
            self.ledger.spend(number, "correct", time.monotonic() - started)
        parents = (read_manifest(self._pairs(number)).hash,)
        wait_for(lambda: _parents(out) == parents, f"the corrections in {out}")

    def _measure(self, number: int) -> None:
        """Figures of the policy after that many rounds."""
        if self.evaluator and self.ledger.writes and "figures" not in self.ledger.read().get(number, {}):
            started = time.monotonic()
            figures, answers = self.evaluator.measure(self._engine())
            keep_answers(self.directory, number, answers)
            self.ledger.note(number, figures=figures)
            self.ledger.spend(number, "measure", time.monotonic() - started)

    def _note(self, number: int, manifest: Manifest, run: FeedbackPipeline) -> None:
        entry = {"pairs": manifest.samples, "manifest": manifest.hash, "drops": manifest.drops}
        entry["notes"] = manifest.notes
        if self.evaluator and self.ledger.writes:
            entry["agreement"] = self.evaluator.agreement(with_samples(run))
        self.ledger.note(number, **entry)

    def _stop_without_pairs(self, trainer: Trainer, epoch: int) -> None:
        is_over = epoch >= trainer.max_epochs or 0 <= trainer.max_steps <= trainer.global_step
        if is_over or trainer.should_stop or epoch % self.epochs:
            return
        self.shards_of_epoch(epoch)
        number = epoch // self.epochs + 1
        if number > 1 and (made := read_manifest(self._shards(number)).samples) < self.min_pairs:
            trainer.should_stop = True
            if trainer.is_global_zero:
                stderr.print(
                    f"Round {number} made {made} {self._kind}, fewer than min_pairs ({self.min_pairs}): "
                    "the run ends here."
                )

    @property
    def _kind(self) -> str:
        return "pairs with corrections" if self.corrector else "pairs"

    def _pairs(self, number: int) -> Path:
        return self.directory / str(number)

    def _shards(self, number: int) -> Path:
        """What the policy trains on in a round."""
        return self._pairs(number) / "corrections" if self.corrector else self._pairs(number)


def _parents(shards: Path) -> tuple[str, ...]:
    """What finished shards were made from; nothing where there are none."""
    manifest = finished_manifest(shards)
    return manifest.parents if manifest else ()
