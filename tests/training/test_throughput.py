"""What a run says about its speed, by a clock that the test turns."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers.logger import Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlaifv_pl.models.flops import FlopMeter
from rlaifv_pl.models.vlm import Batch
from rlaifv_pl.objectives import DPOModule
from rlaifv_pl.training.loggers import RunCSVLogger
from rlaifv_pl.training.throughput import Throughput
from tests.models.plain import PAIRS, TEXT_ONLY
from tests.objectives.test_modules import Batches, make
from tests.training.tiny import dpo_config, run, table, write_config, write_pairs

WAIT, WORK, SAVE, VALIDATE = 3.0, 1.0, 50.0, 1000.0


class Clock:
    """Stands still unless it is turned."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Recorder(Logger):
    """Keeps what is logged of the speed, by step."""

    name, version = "recorder", 0

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, dict[str, float]] = {}

    def log_hyperparams(self, *_: Any) -> None: ...

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        found = {name.removeprefix("throughput/"): v for name, v in metrics.items() if "throughput/" in name}
        if found:
            assert step not in self.seen
            self.seen[step] = found


class Saving(Checkpoint):
    """Takes its time."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_batch_end(self, *_: Any) -> None:
        self.clock.now += SAVE


class SlowBatches(Batches):
    """Batches that are waited for."""

    clock: Clock

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        loader = super().train_dataloader()
        collate = loader.collate_fn
        loader.collate_fn = lambda samples: (self._tick(), collate(samples))[1]
        return loader

    def _tick(self) -> None:
        self.clock.now += WAIT

    val_dataloader = Batches.train_dataloader


class SlowDPO(DPOModule):
    """Steps that take their time."""

    clock: Clock
    works: Iterator[float]

    def training_step(self, batch: Batch, index: int) -> torch.Tensor | None:
        self.clock.now += next(self.works)
        return super().training_step(batch, index)

    def validation_step(self, batch: Batch, index: int) -> None:
        self.clock.now += VALIDATE
        super().validation_step(batch, index)


def measured(path: Path, folder: Path, *batches: list, works: list[float] | None = None, **options: Any):
    """The figures of a run by step, its callback and its module; `works` are the seconds of the batches."""
    clock, recorder = Clock(), Recorder()
    callback = Throughput(options.pop("window", 20), options.pop("peak_tflops", None))
    callback._clock = clock
    module = make(SlowDPO, path, options.pop("policy", {}))
    module.clock, module.works = clock, iter(works or [WORK] * len(batches))
    data = SlowBatches(*batches, on_bad_sample="skip")
    data.clock = clock
    trainer = L.Trainer(
        default_root_dir=folder, accelerator="cpu", logger=[recorder, RunCSVLogger(str(folder))], max_epochs=1,
        callbacks=[Saving(clock), callback], log_every_n_steps=options.pop("log_every_n_steps", 1),
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, **options,
    )  # fmt: skip
    trainer.fit(module, data)
    return recorder.seen, callback, module


@pytest.fixture
def llava(family_dir: Callable[[str], Path]) -> Path:
    return family_dir("llava")


def test_steps_and_waiting_for_them_are_all_the_time_there_is(llava: Path, tmp_path: Path):
    """Neither validation, in the middle and at the end, nor saving."""
    seen, _, _ = measured(llava, tmp_path, *[PAIRS] * 4, val_check_interval=2)
    assert list(seen) == [0, 1, 2, 3]
    for figures in seen.values():
        assert figures["samples_per_second"] == pytest.approx(2 / (WAIT + WORK))
        assert figures["waiting"] == pytest.approx(WAIT / (WAIT + WORK))
        assert "mfu" not in figures  # nobody knows the peak of this machine


def test_figures_are_of_the_last_steps(llava: Path, tmp_path: Path):
    seen, _, _ = measured(llava, tmp_path, *[PAIRS] * 4, works=[5.0, 7.0, 1.0, 0.0], window=2)
    speeds = [figures["samples_per_second"] for figures in seen.values()]
    assert speeds == pytest.approx([2 / 8, 4 / 18, 4 / 14, 4 / 7])


def test_accumulated_batches_are_one_step(llava: Path, tmp_path: Path):
    """The last step has one batch."""
    batches = [PAIRS, PAIRS[:1], PAIRS]
    seen, _, _ = measured(llava, tmp_path, *batches, accumulate_grad_batches=2, window=1)
    assert list(seen) == [0, 1]
    assert seen[0]["samples_per_second"] == pytest.approx(3 / (2 * (WAIT + WORK)))
    assert seen[1]["samples_per_second"] == pytest.approx(2 / (WAIT + WORK))


def test_steps_that_are_not_logged_are_counted(llava: Path, tmp_path: Path):
    batches = [[PAIRS[0]], PAIRS, [PAIRS[0]], PAIRS]
    seen, callback, _ = measured(llava, tmp_path, *batches, log_every_n_steps=2)
    assert list(seen) == [1, 3]
    assert seen[3]["samples_per_second"] == pytest.approx(6 / (4 * (WAIT + WORK)))
    assert callback._total[2] == 5 and callback._counted == 3  # but for the first step


@pytest.mark.parametrize("attention", ["rows", "dense", "split"])
def test_tokens_padding_and_mfu(llava: Path, tmp_path: Path, attention: str, capsys: Any):
    samples = [*PAIRS, TEXT_ONLY]
    seen, _, module = measured(
        llava, tmp_path, samples, samples, policy={"attention": attention}, peak_tflops=1e-6
    )
    batch = module.collator("raise")(samples)
    lengths = batch.tokens.rows["attention_mask"].sum(1).tolist()
    tokens, cells = sum(lengths), 6 * max(lengths)
    if attention != "rows":
        shared = [branch.start for branch in batch.layout.branches]
        own = [lengths[at] + lengths[at + 3] - shared[at + 3] for at in range(3)]
        tokens, cells = sum(own), (3 * max(own) if attention == "dense" else sum(own))
    meter = FlopMeter(module.policy)
    module.policy(batch)
    flops = meter.read(batch, reference=True).flops
    for figures in seen.values():
        assert figures["tokens_per_second"] == pytest.approx(tokens / (WAIT + WORK))
        assert figures["padding"] == pytest.approx(1 - tokens / cells, abs=1e-6)
        assert figures["mfu"] == pytest.approx(flops / 1e6 / (WAIT + WORK), rel=1e-5)
    said = capsys.readouterr().err
    assert "throughput of 1 steps: 0.75 samples/s" in said and "waiting 75.0%" in said and "MFU" in said


def test_a_batch_without_samples_only_costs_time(llava: Path, tmp_path: Path):
    seen, _, _ = measured(llava, tmp_path, PAIRS, [PAIRS[0].__class__(key="bad", prompt="?")], PAIRS)
    assert seen[2]["samples_per_second"] == pytest.approx(4 / (3 * (WAIT + WORK)))


def test_processes_together_are_as_fast_as_all_of_them():
    """The other process has half the samples in the same time, and waits twice as long."""
    other = torch.tensor([4.0, 8.0, 5.0, 50.0, 100.0, 2e12])
    strategy = SimpleNamespace(
        root_device=torch.device("cpu"), reduce=lambda sums, reduce_op: {"sum": sums + other}[reduce_op]
    )
    own = torch.tensor([2.0, 8.0, 10.0, 100.0, 100.0, 6e12], dtype=torch.float64)
    trainer = SimpleNamespace(strategy=strategy, world_size=2)
    figures = Throughput(peak_tflops=1.0)._figures(trainer, own)
    assert figures == pytest.approx(
        {
            "samples_per_second": 15 / 8,
            "tokens_per_second": 150 / 8,
            "padding": 0.25,
            "waiting": 6 / 16,
            "mfu": 8 / 16,
        }
    )


def test_a_run_tells_its_speed_everywhere_but_in_its_table(llava: Path, tmp_path: Path):
    settings = dpo_config(llava, write_pairs(tmp_path / "pairs", 6))
    settings["trainer"] |= {"default_root_dir": str(tmp_path / "run"), "max_epochs": 1}
    config = write_config(tmp_path / "dpo.yaml", settings)
    done = run("fit", "--config", config, "--throughput.peak_tflops", "0.1")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "throughput of 2 steps: " in done.stderr
    events = EventAccumulator(str(next((tmp_path / "run" / "tensorboard").glob("events.*")))).Reload()
    names = {f"throughput/{name}" for name in ("samples_per_second", "tokens_per_second")}
    names |= {f"throughput/{name}" for name in ("padding", "waiting", "mfu")}
    assert names == {tag for tag in events.Tags()["scalars"] if tag.startswith("throughput/")}
    steps = list(table(tmp_path / "run", "train/loss"))
    assert [event.step for event in events.Scalars("throughput/mfu")] == steps == [0, 1, 2]
    assert "throughput" not in (tmp_path / "run" / "metrics.csv").read_text()
    assert "samples/s" not in (tmp_path / "run" / "metrics.csv").read_text()


def test_a_window_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"throughput\.window is 0"):
        Throughput(window=0)
