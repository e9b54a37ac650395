"""Shards of the rounds of a run: answers of the policy of now, judged and paired, with corrections if asked for."""

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch import Trainer

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
from rlaifv_pl.objectives.base import AlignmentModule
from rlaifv_pl.rounds.answers import keep_answers
from rlaifv_pl.rounds.evaluator import with_samples
from rlaifv_pl.rounds.ledger import Ledger
from rlaifv_pl.rounds.prompts import next_prompts, recorded_prompts
from rlaifv_pl.seeds import derive, run_seed

if TYPE_CHECKING:
    from rlaifv_pl.rounds.callback import Rounds


class RoundShards:
    """Makes each round's shards in `<run>/rounds/<number>`, counted from 1, and measures the policy between rounds.

    What is there is not made again. All processes call each method together.

    Args:
        options: the callback with its options.
        feedback: how answers become pairs.
        trainer: with its DataModule.
        module: whose policy answers.
        ledger: the record of the rounds.
    """

    def __init__(
        self,
        options: "Rounds",
        feedback: FeedbackConfig,
        trainer: Trainer,
        module: AlignmentModule,
        ledger: Ledger,
    ) -> None:
        self.options, self.feedback, self.ledger = options, feedback, ledger
        self.trainer, self.module, self.directory = trainer, module, ledger.path.parent
        self._prompts = get_datamodule(trainer).fetch(options.prompts or [])

    def make(self, number: int) -> tuple[FeedbackPipeline, Manifest]:
        """Make a round's shards; each process asks the policy for its share.

        Returns:
            The pass of feedback, and the manifest of its pairs.
        """
        pipeline = self._pipeline(number)
        self.ledger.begin(number, hash_json(pipeline.recipe()), pipeline.prompts.keys())
        self.measure(number - 1)
        pipeline.make()
        self.trainer.strategy.barrier()  # Others may have found shards that the first process makes anew.
        manifest = read_manifest(self.pairs(number))
        if self.options.corrector is not None:
            self._make_corrections(number, self.options.corrector)
        self._note(number, manifest, pipeline)
        return pipeline, manifest

    def measure(self, number: int) -> None:
        """Measure the policy after a round; 0 is before the first. Only one process does, and only once."""
        evaluator = self.options.evaluator
        if evaluator and self.ledger.writes and "figures" not in self.ledger.read().get(number, {}):
            started = time.monotonic()
            figures, answers = evaluator.measure(self._engine())
            keep_answers(self.directory, number, answers)
            self.ledger.note(number, figures=figures)
            self.ledger.spend(number, "measure", time.monotonic() - started)

    def are_as_configured(self, number: int) -> bool:
        """Whether a round's shards are finished, and made with the settings of now."""
        expected = {self.pairs(number): ("settings", self._pipeline(number, is_begun=True).settings())}
        if self.options.corrector is not None:
            expected[self.path(number)] = ("correct", self.options.corrector.recipe())
        return all(
            (out / MANIFEST_NAME).is_file()
            and hash_json(read_manifest(out).recipe.get(name)) == hash_json(value)
            for out, (name, value) in expected.items()
        )

    def pairs(self, number: int) -> Path:
        """Directory of a round's pairs."""
        return self.directory / str(number)

    def path(self, number: int) -> Path:
        """Directory of the shards that a round trains on."""
        return self.pairs(number) / "corrections" if self.options.corrector else self.pairs(number)

    def count(self, number: int) -> int:
        """Number of samples that a round trains on."""
        return read_manifest(self.path(number)).samples

    @property
    def max_epochs(self) -> int:
        """Epochs of the run."""
        return self.trainer.max_epochs or 0  # At least 1, says `check_rounds`.

    def _pipeline(self, number: int, *, is_begun: bool = False) -> FeedbackPipeline:
        return FeedbackPipeline(
            feedback=self.feedback,
            policy=self._engine(),
            prompts=self._draw_prompts(number, is_begun=is_begun),
            out=self.pairs(number),
            seed=derive(run_seed(), "round", number),
            round=number,
            executor=RankShare(self.trainer.global_rank, self.trainer.world_size),
            clock=partial(self.ledger.spend, number),
        )

    def _engine(self) -> InMemoryEngine:
        context = self.trainer.strategy.precision_plugin.forward_context
        chat = Chat(self.module.processor)
        return InMemoryEngine(self.module.policy, chat, self.options.batch_size, context=context)

    def _draw_prompts(self, number: int, *, is_begun: bool) -> PromptSet:
        shards = load_shards(self._prompts)
        check_keys(PromptSet(shards, range(len(shards))), self.feedback.pairing.max_pairs)
        recorded = recorded_prompts(shards, self.ledger.prompts(number)) if is_begun else None
        return recorded or next_prompts(
            shards,
            self.ledger.prompts_before(number),
            derive(run_seed(), "prompts"),
            rounds=self.max_epochs // self.options.epochs - number + 1,
            count=self.options.prompts_per_round,
            repeat=self.options.repeat_prompts,
        )

    def _make_corrections(self, number: int, corrector: Corrector) -> None:
        out = self.path(number)
        if self.trainer.is_global_zero:
            started = time.monotonic()
            seed = derive(run_seed(), "correct", number)
            writing = Writing(overwrite=True, link_duplicate_images=self.feedback.link_duplicate_images)
            correct_shards(str(self.pairs(number)), out, corrector, seed, **writing)
            self.ledger.spend(number, "correct", time.monotonic() - started)
        parents = (read_manifest(self.pairs(number)).hash,)

        def is_corrected() -> bool:
            manifest = finished_manifest(out)
            return manifest is not None and manifest.parents == parents

        wait_for(is_corrected, f"the corrections in {out}")

    def _note(self, number: int, manifest: Manifest, pipeline: FeedbackPipeline) -> None:
        self.ledger.note(
            number,
            pairs=manifest.samples,
            manifest=manifest.hash,
            drops=manifest.drops,
            notes=manifest.notes,
        )
        if self.options.evaluator and self.ledger.writes:
            self.ledger.note(number, agreement=self.options.evaluator.agreement(with_samples(pipeline)))
