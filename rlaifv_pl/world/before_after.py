"""What alignment did to a model of the world: the same held-out scenes described before and after."""

import json
import math
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table

from rlaifv_pl.data.atomic import atomic_file
from rlaifv_pl.data.shards import load_shards
from rlaifv_pl.feedback.generate import Sampling, batches, generate
from rlaifv_pl.models.chat import Chat
from rlaifv_pl.models.vlm import VLM
from rlaifv_pl.records import Sample
from rlaifv_pl.seeds import run_seed
from rlaifv_pl.world.evaluate import WorldFigures, world_figures
from rlaifv_pl.world.scenes import Scene

ROWS = (
    ("instance", "instance hallucination", "{:.1%}"),
    ("sentence", "sentence hallucination", "{:.1%}"),
    ("claim", "false claims", "{:.1%}"),
    ("recall", "recall", "{:.1%}"),
    ("length", "words a description", "{:.1f}"),
)


def describe(policy: VLM, chat: Chat, prompts: list[Sample], batch_size: int = 128) -> list[str]:
    """The policy's greedy description of each scene."""
    greedy = Sampling(n=1, temperature=0.0, max_new_tokens=80)
    groups = (generate(policy, chat, group, greedy) for group in batches(prompts, batch_size))
    return [candidates[0].text for group in groups for candidates in group]


class BeforeAfter(Callback):
    """Prints a table of figures before and after training, and writes them to `<run>/summary.json`.

    Args:
        scenes: shard directory of held-out scenes.
    """

    def __init__(self, scenes: str) -> None:
        self.scenes = scenes

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._started = time.monotonic()

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A resumed run begins with weights that have changed already: its "before" is the first start's.
        kept = Path(trainer.default_root_dir) / "before.json"
        if trainer.ckpt_path is None or not kept.is_file():
            _write(kept, self._measure(pl_module).to_json())
        figures = json.loads(kept.read_text())
        self._before = WorldFigures(
            **{name: math.nan if value is None else value for name, value in figures.items()}
        )

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        after = self._measure(pl_module)
        summary = {
            "before": self._before.to_json(),
            "after": after.to_json(),
            "seconds": round(time.monotonic() - self._started, 1),
            "seed": run_seed(),
        }
        path = Path(trainer.default_root_dir) / "summary.json"
        _write(path, summary)
        Console(stderr=True).print(_table(self._before, after))
        Console(stderr=True).print(f"{summary['seconds']} seconds; written to {path}")

    def _measure(self, pl_module: LightningModule) -> WorldFigures:
        scenes = load_shards(self.scenes)
        prompts = [scenes[index] for index in range(len(scenes))]
        texts = describe(pl_module.policy, Chat(pl_module.processor), prompts)
        return world_figures(texts, [Scene.from_json(prompt.extra["scene"]) for prompt in prompts])


def _table(before: WorldFigures, after: WorldFigures) -> Table:
    table = Table("held-out scenes", "before", "after", "change", title="what alignment changed")
    for name, title, form in ROWS:
        old, new = getattr(before, name), getattr(after, name)
        table.add_row(title, form.format(old), form.format(new), f"{new / old - 1:+.1%}" if old else "")
    return table


def _write(path: Path, value: Any) -> None:
    with atomic_file(path) as file:
        file.write((json.dumps(value, indent=2) + "\n").encode())
