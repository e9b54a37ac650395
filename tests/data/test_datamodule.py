"""Killed anywhere = never killed, for the samples that a run sees and the weights that they make.

A model of one number stands in for the policy: its weight is a fingerprint of all samples in their
order, so a lost, repeated or moved sample, or half of an accumulated gradient, shows in the last bit.
"""

from datetime import timedelta
from itertools import product
from math import ceil
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from rlaifv_pl.data.bad_samples import BadSample
from rlaifv_pl.data.datamodule import AlignmentDataModule
from rlaifv_pl.data.manifest import ManifestError
from rlaifv_pl.data.shards import ShardWriter
from rlaifv_pl.models.vlm import Accounting
from rlaifv_pl.training.checkpoint import RunCheckpoint
from tests.data.samples import pair

LENGTHS = {"growing": (4, 6, 11), "shrinking": (11, 6, 4), "mixed": (6, 11, 4)}  # samples of each epoch


class Tracer(L.LightningModule):
    """Fits `(w - x)^2`, x read off the keys; remembers what it saw, and what a checkpoint has seen of it."""

    reference_mode = "none"
    trained = 0
    """Batches, by all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen, self.validated, self.before = [], 0, 0

    def collator(self, on_bad_sample):
        return lambda samples: SimpleNamespace(
            keys=[sample.key for sample in samples],
            counts=torch.tensor([len(samples)]),
            accounting=Accounting(),
        )

    def known(self, samples, batch_size, how):
        return None

    def training_step(self, batch, index):
        self.seen.append((self.current_epoch, index, batch.keys))
        Tracer.trained += 1
        x = torch.tensor([float(key[1:]) for key in batch.keys])
        of_step = (self.weight - x).square().sum() / batch.accounting.step_counts[0]
        return of_step * self.trainer.accumulate_grad_batches

    def validation_step(self, batch, index):
        self.validated += len(batch.keys)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)

    def on_save_checkpoint(self, checkpoint):
        checkpoint["seen"] = self.before + len(self.seen)

    def on_load_checkpoint(self, checkpoint):
        self.before = checkpoint["seen"]


class Rounds(AlignmentDataModule):
    """Other shards in each epoch, as the rounds of feedback make them."""

    def __init__(self, directories, **options):
        super().__init__(**options)
        self.directories = directories

    def train_dataloader(self):
        self.train = self.directories[min(self.trainer.current_epoch, len(self.directories) - 1)]
        return super().train_dataloader()


class Killed(Exception):
    pass


class KillAt(Callback):
    def __init__(self, batch: int) -> None:
        self.left = batch

    def on_train_batch_start(self, *_):
        self.left -= 1
        if self.left < 0:
            raise Killed


def shards(directory: Path, count: int, first: int = 0) -> str:
    with ShardWriter(directory, recipe={"first": first, "count": count}, samples_per_shard=3) as writer:
        for number in range(first, first + count):
            writer.write(pair(f"k{number}"))
    return str(directory)


@pytest.fixture(scope="module")
def rounds(tmp_path_factory):
    """Shards of each length, keys apart."""
    root = tmp_path_factory.mktemp("rounds")
    return {n: shards(root / str(n), n, first=100 * n) for n in (4, 6, 11)}


def fit(where, data, *callbacks, resume=None, epochs=3, every=1, interval=None, **options):
    """Trains a fresh Tracer; `where` gets the checkpoints."""
    module = Tracer()
    keeper = RunCheckpoint(every_n_train_steps=every, train_time_interval=interval, save_top_k=100)
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=where,
        max_epochs=epochs,
        callbacks=[keeper, *callbacks],
        use_distributed_sampler=False,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.fit(module, data, ckpt_path=resume)
    return module


def saved(where: Path) -> list[Path]:
    found = [path for path in (where / "checkpoints").iterdir() if not path.is_symlink()]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def sweep(tmp_path, make_data, resumed_data=None, **options):
    """Resumes from every checkpoint of a run and compares with its remainder."""
    whole = fit(tmp_path / "whole", make_data(), **options)
    checkpoints = saved(tmp_path / "whole")
    for checkpoint in checkpoints:
        again = fit(
            tmp_path / "again" / checkpoint.stem, (resumed_data or make_data)(), resume=checkpoint, **options
        )
        assert again.seen == whole.seen[again.before :], checkpoint.name
        assert torch.equal(again.weight, whole.weight), checkpoint.name
    return whole, checkpoints


@pytest.mark.parametrize("limit", [-1, 6, 1000], ids=["epochs", "few steps", "many steps"])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_resuming_from_every_checkpoint_sees_exactly_what_is_left(
    tmp_path, rounds, lengths, accumulate, limit
):
    directories = [rounds[n] for n in LENGTHS[lengths]]

    def data():
        return Rounds(directories, batch_size=2, num_workers=0, shuffle_window=2)

    whole, checkpoints = sweep(tmp_path, data, accumulate_grad_batches=accumulate, max_steps=limit)
    updates = [ceil(ceil(n / 2) / accumulate) for n in LENGTHS[lengths]]
    made = min(sum(updates), limit) if limit > 0 else sum(updates)
    assert len(checkpoints) == made, "one for each update, the ends of epochs included"
    if limit != 6:
        seen = sorted(key for _, _, keys in whole.seen for key in keys)
        assert seen == sorted(f"k{100 * n + i}" for n in LENGTHS[lengths] for i in range(n))


@pytest.mark.parametrize(("accumulate", "limit"), [(1, -1), (2, 1000)])
def test_resuming_is_exact_with_a_validation_loop_too(tmp_path, rounds, accumulate, limit):
    directories = [rounds[n] for n in LENGTHS["mixed"]]

    def data():
        return Rounds(directories, val=rounds[4], batch_size=2, num_workers=0, shuffle_window=2)

    whole, _ = sweep(tmp_path, data, accumulate_grad_batches=accumulate, max_steps=limit)
    assert whole.validated == 3 * 4


def test_resuming_is_exact_with_validation_inside_the_epoch(tmp_path, rounds):
    sweep(
        tmp_path,
        lambda: Rounds([rounds[11], rounds[6], rounds[11]], val=rounds[4], batch_size=2, num_workers=0),
        val_check_interval=2,
    )


def test_resuming_is_exact_when_the_epoch_is_cut_short(tmp_path, rounds):
    whole, _ = sweep(
        tmp_path, lambda: AlignmentDataModule(rounds[11], batch_size=2, num_workers=0), limit_train_batches=4
    )
    assert len(whole.seen) == 12


def test_resuming_is_exact_with_another_number_of_workers(tmp_path, rounds):
    def data(workers):
        return lambda: AlignmentDataModule(rounds[4], batch_size=2, num_workers=workers)

    sweep(tmp_path, data(0), data(2), epochs=2)


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2), (4, 1), (1, 20)])
def test_another_batch_size_in_mid_epoch_sees_each_sample_once(tmp_path, rounds, before, after):
    lengths = (11, 6, 4)

    def data(size):
        return Rounds([rounds[n] for n in lengths], batch_size=size, num_workers=0)

    whole = fit(tmp_path / "whole", data(before))
    for checkpoint in saved(tmp_path / "whole"):
        again = fit(tmp_path / checkpoint.stem, data(after), resume=checkpoint)
        keys = [key for _, _, keys in whole.seen[: again.before] + again.seen for key in keys]
        assert sorted(keys) == sorted(f"k{100 * n + i}" for n in lengths for i in range(n)), checkpoint.name
        pairs = zip(again.seen, again.seen[1:], strict=False)
        inner = [keys for (epoch, _, keys), (later, _, _) in pairs if epoch == later]
        assert all(len(keys) == after for keys in inner), "all but the last of an epoch have the new size"


@pytest.mark.parametrize(
    ("accumulate", "alive"),
    # Batches that each start lives for. Those of one, and of three, end between accumulated batches.
    [(1, [2, 1, 1, 3, 1]), (2, [2, 2, 2]), (2, [5, 1, 3, 1, 1, 3]), (3, [4, 1, 2, 5, 2])],
)
def test_a_run_killed_again_and_again_ends_like_one_never_killed(tmp_path, rounds, accumulate, alive):
    def data():
        return Rounds([rounds[n] for n in LENGTHS["mixed"]], batch_size=2, num_workers=0)

    whole = fit(tmp_path / "whole", data(), accumulate_grad_batches=accumulate)
    for batches in alive:
        with pytest.raises(Killed):
            fit(tmp_path / "run", data(), KillAt(batches), resume="last", accumulate_grad_batches=accumulate)
    module = fit(tmp_path / "run", data(), resume="last", accumulate_grad_batches=accumulate)
    assert module.before > 0
    assert torch.equal(module.weight, whole.weight)


@pytest.mark.parametrize("seconds", [1, 2, 3])
def test_a_checkpoint_by_the_clock_never_falls_between_accumulated_batches(
    tmp_path, rounds, seconds, monkeypatch
):
    clock = SimpleNamespace(monotonic=lambda: Tracer.trained)  # a batch takes a second
    monkeypatch.setattr("lightning.pytorch.callbacks.model_checkpoint.time", clock)
    whole, checkpoints = sweep(
        tmp_path,
        lambda: AlignmentDataModule(rounds[11], batch_size=1, num_workers=0),
        accumulate_grad_batches=4,
        epochs=2,
        interval=timedelta(seconds=seconds),
    )
    assert len(checkpoints) > 2, "not the ends of the epochs alone"
    assert len(whole.seen) == 22


def test_a_datamodule_used_for_a_second_run_starts_from_the_beginning(tmp_path, rounds):
    data = AlignmentDataModule(rounds[6], batch_size=2, num_workers=0)
    first = fit(tmp_path / "a", data, epochs=1)
    second = fit(tmp_path / "b", data, epochs=1)
    assert len(first.seen) == 3 and second.seen == first.seen


def at(data, epoch=0, rank=0, world=1, module=None):
    """The data module as it stands in one of several processes."""
    strategy = SimpleNamespace(root_device=torch.device("cpu"), reduce=lambda counts, reduce_op: counts)
    data.trainer = SimpleNamespace(
        current_epoch=epoch,
        global_rank=rank,
        world_size=world,
        accumulate_grad_batches=1,
        num_training_batches=float("inf"),
        strategy=strategy,
        lightning_module=module or Tracer(),
    )
    return data


def take(directory, size, world, state=None, batches=None):
    """Keys that the ranks see in epoch 0 from a state on, and the state that rank 0 saves then."""
    seen, states = [], []
    for rank in range(world):
        data = at(AlignmentDataModule(directory, batch_size=size, num_workers=0), rank=rank, world=world)
        if state:
            data.load_state_dict(state)
        for index, batch in enumerate(data.train_dataloader()):
            seen += batch.keys
            if index + 1 == batches:
                break
        states.append(data.state_dict())
    assert all(one == states[0] for one in states), "equal on all ranks, so rank 0 speaks for them"
    return seen, states[0]


@pytest.mark.parametrize(("before", "after"), list(product([(2, 1), (1, 3), (2, 2)], repeat=2)))
def test_another_number_of_processes_in_mid_epoch_neither_repeats_nor_skips(rounds, before, after):
    everything = {f"k{1100 + i}" for i in range(11)}
    for batches in range(1, 1 + 11 // (before[0] * before[1])):
        first, state = take(rounds[11], *before, batches=batches)
        second, _ = take(rounds[11], *after, state=state)
        assert len(first + second) == len(set(first + second))
        assert {*first, *second} == everything


def test_the_position_counts_what_was_handed_out_and_not_what_workers_read_ahead(rounds):
    data = at(AlignmentDataModule(rounds[11], batch_size=2, num_workers=2))
    batches = iter(data.train_dataloader())
    assert data.state_dict()["samples"] == 0
    for count in range(1, 4):
        next(batches)
        assert data.state_dict().items() >= {"epoch": 0, "samples": 2 * count, "batches": count}.items()


def test_going_on_inside_an_epoch_of_other_shards_is_refused(tmp_path, rounds):
    """Other samples in as many shards; the same ones elsewhere are the same."""
    data = at(AlignmentDataModule(rounds[11], batch_size=2, num_workers=0))
    start = data.state_dict()
    next(iter(data.train_dataloader()))
    state = data.state_dict()
    elsewhere = shards(tmp_path / "moved", 11, first=1100)
    take(elsewhere, 2, 1, state=state)
    other = shards(tmp_path / "other", 11, first=1000)
    with pytest.raises(ManifestError, match=r"data\.train holds other shards .*, 2 samples into the epoch"):
        take(other, 2, 1, state=state)
    for state_before_there_was_a_check in (start, {"epoch": 0, "samples": 2, "batches": 1}):
        take(other, 2, 1, state=state_before_there_was_a_check)


def test_the_length_of_an_epoch_counts_what_came_before_the_interruption(rounds):
    data = at(AlignmentDataModule(rounds[11], batch_size=2, num_workers=0))
    data.load_state_dict({"epoch": 0, "samples": 8, "batches": 4})
    loader = data.train_dataloader()
    assert len(loader) == data.batches_per_epoch() == 6
    assert len(list(loader)) == 2


def test_the_state_is_a_copy_that_training_on_does_not_change(rounds):
    data = at(AlignmentDataModule(rounds[11], batch_size=2, num_workers=0))
    state = data.state_dict()
    next(iter(data.train_dataloader()))
    assert state["samples"] == 0 and data.state_dict()["samples"] == 2


def test_an_epoch_of_its_own_starts_at_zero(rounds):
    data = at(AlignmentDataModule(rounds[11], batch_size=2, num_workers=0), epoch=1)
    data.load_state_dict({"epoch": 0, "samples": 8, "batches": 4})
    assert len(list(data.train_dataloader())) == 6


def test_missing_shards_are_named_by_their_option(rounds):
    with pytest.raises(ValueError, match=r"data\.train.*--data\.train"):
        at(AlignmentDataModule()).train_dataloader()
    assert at(AlignmentDataModule(rounds[4])).val_dataloader() == []


def test_several_directories_make_one_epoch(rounds):
    data = at(AlignmentDataModule([rounds[4], rounds[6]], batch_size=20, num_workers=0))
    (batch,) = data.train_dataloader()
    assert sorted(batch.keys) == sorted([f"k{400 + i}" for i in range(4)] + [f"k{600 + i}" for i in range(6)])


def test_validation_goes_through_the_samples_in_order_on_all_ranks(rounds):
    shares = []
    for rank in range(2):
        data = at(AlignmentDataModule(val=rounds[6], batch_size=2, val_batch_size=1), rank=rank, world=2)
        shares.append([batch.keys for batch in data.val_dataloader()])
    assert shares == [[["k600"], ["k602"], ["k604"]], [["k601"], ["k603"], ["k605"]]]


def test_sources_are_asked_before_anything_is_read(tmp_path):
    class Maker:
        def ensure(self):
            return shards(tmp_path / "made", 3)

    data = AlignmentDataModule(str(tmp_path / "made"), sources=[Maker()], batch_size=3, num_workers=0)
    data.prepare_data()
    assert len(list(at(data).train_dataloader())) == 1


def test_a_sample_that_cannot_be_read_reaches_the_collator_as_its_fault(tmp_path):
    directory = Path(shards(tmp_path / "bad", 3))
    (tar,) = directory.glob("*.tar")
    tar.write_bytes(tar.read_bytes().replace(b'"chosen": "Two cats."', b'"chosen": 123456789.0', 1))
    got = []

    class Listener(Tracer):
        def collator(self, on_bad_sample):
            made = SimpleNamespace(keys=[on_bad_sample], counts=torch.tensor([1]), accounting=Accounting())
            return lambda samples: got.extend(samples) or made

    data = AlignmentDataModule(str(directory), batch_size=3, num_workers=0, on_bad_sample="skip")
    assert [batch.keys for batch in at(data, module=Listener()).train_dataloader()] == [["skip"]]
    assert sorted(isinstance(sample, BadSample) for sample in got[-3:]) == [False, False, True]


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_every_sample_of_a_step_counts_equally(tmp_path, rounds, accumulate):
    """Batches of 2 with a rest of 1: each step of SGD moves by the mean over all of its samples."""
    data = AlignmentDataModule(rounds[11], batch_size=2, num_workers=0)
    module = fit(tmp_path, data, epochs=1, accumulate_grad_batches=accumulate)
    weight, speed = 0.0, 0.0
    for first in range(0, 6, accumulate):
        step = [float(key[1:]) for _, _, keys in module.seen[first : first + accumulate] for key in keys]
        speed = 0.9 * speed + sum(2 * (weight - x) for x in step) / len(step)
        weight -= 0.05 * speed
    assert module.weight.item() == pytest.approx(weight, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": None}, "data.max_tokens must say"),
        ({"batch_size": 0}, "data.batch_size is 0"),
        ({"max_tokens": 0}, "data.max_tokens is 0"),
        ({"length_bucket": -1}, "data.length_bucket is -1"),
    ],
)
def test_sizes_that_cannot_be_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        AlignmentDataModule("shards", **options)
