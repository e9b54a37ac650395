"""Rounds of alignment: the policy's own answers become the shards that it trains on.

A round's shards are known by their manifest: what is there is not made again, so that a run that was
killed goes on where it was.
"""

from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint
from rich.console import Console
from rich.progress import track

from rlaifv_pl.data.manifest import MANIFEST_NAME, hash_json, read_manifest
from rlaifv_pl.data.shards import ShardSet, ShardWriter, load_shards
from rlaifv_pl.feedback.run import Feedback
from rlaifv_pl.models.chat import Chat
from rlaifv_pl.objectives.base import AlignmentModule, RunError
from rlaifv_pl.seeds import derive, run_seed


class Rounds(Checkpoint):
    """Makes the shards of a round from the policy as it is when the round begins.

    One round so far: its shards are `<run>/rounds/0`, made before training begins.

    Args:
        prompts: shard directory of the prompts that the policy answers.
        feedback: how its answers become pairs.
    """

    def __init__(self, prompts: str, feedback: Feedback) -> None:
        self.prompts, self.feedback = prompts, feedback

    def on_fit_start(self, trainer: Trainer, pl_module: AlignmentModule) -> None:
        if trainer.world_size > 1:
            raise RunError("Rounds make their shards in one process so far. Run with trainer.devices=1.")
        self.ensure_round(trainer, pl_module, 0)

    def ensure_round(self, trainer: Trainer, pl_module: AlignmentModule, number: int) -> Path:
        """The finished shards of a round, made now unless they are there.

        Raises:
            RunError: the run is resumed with other settings than its shards were made with, or no two
                candidates of any prompt make a pair.
        """
        out = Path(trainer.default_root_dir) / "rounds" / str(number)
        prompts = load_shards(self.prompts)
        recipe = {
            "feedback": self.feedback.recipe(),
            "policy": pl_module.base_weights,
            "prompts": [manifest.hash for manifest in prompts.manifests],
            "seed": derive(run_seed(), "round", number),
        }
        if not _is_made(out, recipe):
            if trainer.ckpt_path is not None:
                raise RunError(
                    f"{out} was made with other settings of feedback, prompts, seed or policy, and the policy that "
                    "this run goes on with has been trained since. Resume with the settings of the run's "
                    "config.yaml, or start a new run in another trainer.default_root_dir."
                )
            self._make(out, recipe, prompts, pl_module, number)
        if not read_manifest(out).samples:
            raise RunError(
                f"Round {number}: no two candidates of the {len(prompts)} prompts make a pair under "
                f"{self.feedback.rule}. Sample more candidates, at a higher temperature, or loosen the rule."
            )
        return out

    def _make(
        self, out: Path, recipe: dict[str, Any], prompts: ShardSet, pl_module: AlignmentModule, number: int
    ) -> None:
        samples = [prompts[index] for index in range(len(prompts))]
        made = self.feedback.pairs(pl_module.policy, Chat(pl_module.processor), samples, recipe["seed"])
        steps = track(made, f"round {number}: feedback", len(samples), console=Console(stderr=True))
        with ShardWriter(
            out, recipe=recipe, round=number, parents=recipe["prompts"], overwrite=True
        ) as writer:
            for pairs in steps:
                for sample in pairs:
                    writer.write(sample)
                if not pairs:
                    writer.drop("no_pair")


def _is_made(out: Path, recipe: dict[str, Any]) -> bool:
    return (out / MANIFEST_NAME).is_file() and read_manifest(out).recipe_hash == hash_json(recipe)
