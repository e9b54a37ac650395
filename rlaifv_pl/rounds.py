"""Rounds of alignment: the policy's own answers become the shards that it trains on.

A round's shards are known by their manifest: what is there is not made again, so that a run that was
killed goes on where it was.
"""

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from rich.console import Console
from rich.progress import track

from rlaifv_pl.data.manifest import MANIFEST_NAME, hash_json, read_manifest
from rlaifv_pl.data.shards import ShardWriter, load_shards
from rlaifv_pl.feedback.run import Feedback
from rlaifv_pl.models.chat import Chat
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

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size > 1:
            raise RuntimeError("Rounds make their shards in one process so far. Run with trainer.devices=1.")
        self.ensure_round(trainer, pl_module, 0)

    def ensure_round(self, trainer: Trainer, pl_module: LightningModule, number: int) -> Path:
        """The finished shards of a round, made now unless they are there."""
        out = Path(trainer.default_root_dir) / "rounds" / str(number)
        prompts = load_shards(self.prompts)
        seed = derive(run_seed(), "round", number)
        parents = [manifest.hash for manifest in prompts.manifests]
        recipe = {
            "feedback": self.feedback.recipe(),
            "policy": pl_module.policy_spec.path,
            "prompts": parents,
            "seed": seed,
        }
        if (out / MANIFEST_NAME).is_file() and read_manifest(out).recipe_hash == hash_json(recipe):
            return out
        samples = [prompts[index] for index in range(len(prompts))]
        made = self.feedback.pairs(pl_module.policy, Chat(pl_module.processor), samples, seed)
        steps = track(made, f"round {number}: feedback", len(samples), console=Console(stderr=True))
        with ShardWriter(out, recipe=recipe, round=number, parents=parents, overwrite=True) as writer:
            for pairs in steps:
                for sample in pairs:
                    writer.write(sample)
                if not pairs:
                    writer.drop("no_pair")
        return out
