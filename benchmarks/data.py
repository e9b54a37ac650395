"""Samples a second of every stage between a shard and a batch, and how long a resumed run waits for its first batch.

python -m benchmarks.run --only data
"""

import io
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from benchmarks.shapes import SHAPES, SPECIALS, build, words
from benchmarks.table import Table
from rlaifv_pl.data.batching import epoch_order
from rlaifv_pl.data.datamodule import AlignmentDataModule
from rlaifv_pl.data.images import open_image
from rlaifv_pl.data.shard_writer import ShardWriter
from rlaifv_pl.data.shards import load_shards
from rlaifv_pl.models.policy import PolicySpec
from rlaifv_pl.objectives import DPOModule
from rlaifv_pl.records import Sample
from rlaifv_pl.seeds import run_seed

TRAINED_ON_A_SECOND = 11.8
"""Pairs, by a 7B on an H100 at 40 % of its peak, with shared prefixes and a reference computed beforehand."""
NOTE = f"""Wall time, with files in the page cache, since what is asked is whether training would wait. A 7B on an H100
would train on {TRAINED_ON_A_SECOND} pairs a second (counted in FLOPs, at 40 % of the GPU's peak, prefixes shared, the
reference computed beforehand), and 8 GPUs have 8 loaders."""
BATCH = 8
PROMPT_TOKENS, ANSWER_TOKENS = 38, 110
PHOTO, THUMBNAIL = (360, 480), (24, 32)
DRAWN = 64
"""Different pictures."""


def measure(
    shape: str, repeats: int, photos: int = 2000, collated: int = 256, many: int = 100_000
) -> list[Table]:
    """Time the stages, and resuming.

    Args:
        shape: whose processor is used; all have that of LLaVA-1.5.
        repeats: of each stage; the median counts.
        photos: samples, of 480 x 360 pixels, to index, read and decode.
        collated: of them, as many as are collated too.
        many: samples, in 100 shards, of the run that is resumed.
    """
    vocabulary = SHAPES[shape].vocabulary
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        module = _module(build(shape, folder / shape))
        shards = write(folder / "photos", photos, PHOTO, 500, vocabulary)
        stages = _stages(module, shards, min(collated, photos), repeats)
        shards = write(folder / "many", many, THUMBNAIL, max(1, many // 100), vocabulary)
        return [stages, _resume(module, shards, repeats)]


def write(out: Path, count: int, size: tuple[int, int], per_shard: int, vocabulary: int) -> Path:
    """Shards of pairs with a JPEG of that height and width each."""
    rng = np.random.default_rng(0)
    pictures = [photo(rng, *size) for _ in range(min(count, DRAWN))]
    texts = [words(ANSWER_TOKENS, seed, vocabulary) for seed in range(DRAWN)]
    prompt = words(PROMPT_TOKENS, DRAWN, vocabulary)
    # Few pictures stand for many: each sample has its own, as photos would.
    recipe = {"count": count, "size": size}
    with ShardWriter(out, recipe=recipe, samples_per_shard=per_shard) as writer:
        for number in range(count):
            # A prompt of its own: samples of one image and one prompt would share a tree.
            own = f"{prompt} w{len(SPECIALS) + number % (vocabulary - len(SPECIALS))}"
            answers = {"chosen": texts[number % DRAWN], "rejected": texts[(number + 1) % DRAWN]}
            image = pictures[number % len(pictures)]
            writer.write(Sample(key=f"s{number:06d}", prompt=own, images=(image,), **answers))
    return out


def photo(rng: np.random.Generator, height: int, width: int) -> bytes:
    """A JPEG as smooth, as grainy and so about as large as a photo of its size."""
    coarse = rng.integers(0, 256, (height // 12, width // 12, 3), dtype=np.uint8)
    smooth = np.asarray(
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), dtype=float
    )
    pixels = np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def _stages(module: DPOModule, shards: Path, collated: int, repeats: int) -> Table:
    samples = load_shards(shards)
    read = list(samples)
    collate = module.collator("raise")
    batches = [read[first : first + BATCH] for first in range(0, collated, BATCH)]
    stages: dict[str, tuple[int, Callable[[], object]]] = {
        "index": (len(samples), lambda: load_shards(shards)),
        "read: bytes and JSON": (len(samples), lambda: list(samples)),
        "decode: open the image": (len(read), lambda: [open_image(one.images[0], one.key) for one in read]),
        "collate: decode, tokenise, process the image, find targets": (
            collated,
            lambda: [collate(batch) for batch in batches],
        ),
    }
    rates = {name: count / _median(work, repeats) for name, (count, work) in stages.items()}
    for workers in (0, 1, 2):
        rate = statistics.median(_loaded(module, shards, workers, collated) for _ in range(repeats))
        rates[f"DataModule, {workers or 'no'} worker{'s' * (workers != 1)}"] = rate
    rows = [[name, round(rate, 1), round(rate / TRAINED_ON_A_SECOND, 1)] for name, rate in rates.items()]
    size = len(read[0].images[0]) // 1000
    what = f"{len(samples)} samples with a JPEG of 480 x 360 pixels and {size} kB each; {collated} of them collated"
    return Table(what, ("stage", "samples a second", "times what an H100 trains on"), rows)


def _loaded(module: DPOModule, shards: Path, workers: int, collated: int) -> float:
    """Samples a second through the DataModule, from its first batch on."""
    batches = iter(_data(module, shards, workers).train_dataloader())
    next(batches)
    started = time.perf_counter()
    count = sum(len(batch.keys) for batch in islice(batches, collated // BATCH - 1))
    return count / (time.perf_counter() - started)


def _resume(module: DPOModule, shards: Path, repeats: int) -> Table:
    found = [resume(module, shards) for _ in range(repeats)]
    rows = [[name, round(statistics.median(run[name] for run in found), 3)] for name in found[0]]
    opened = load_shards(shards)
    what = f"A run resumed at the last batch of an epoch of {len(opened):,} samples in {len(opened.lengths)} shards"
    return Table(what, ("until", "seconds"), rows)


def resume(module: DPOModule, shards: Path) -> dict[str, float]:
    """Seconds from opening the shards to the last batch of the epoch, and what they go into."""
    started = time.perf_counter()
    samples = load_shards(shards)
    indexed = time.perf_counter()
    epoch_order(samples.lengths, run_seed(), 0, 8)
    ordered = time.perf_counter()
    data = _data(module, shards, workers=0)
    data.load_state_dict({"epoch": 0, "samples": len(samples) - BATCH, "batches": len(samples) // BATCH - 1})
    begun = time.perf_counter()
    (batch,) = data.train_dataloader()
    assert len(batch.keys) == BATCH
    return {
        "the shards are indexed": indexed - started,
        "the epoch is in order": ordered - indexed,
        "the first batch, with all this": time.perf_counter() - begun,
    }


def _data(module: DPOModule, shards: Path, workers: int) -> AlignmentDataModule:
    data = AlignmentDataModule(train=str(shards), batch_size=BATCH, num_workers=workers)
    data.trainer = SimpleNamespace(
        current_epoch=0,
        global_rank=0,
        world_size=1,
        accumulate_grad_batches=1,
        num_training_batches=float("inf"),
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        lightning_module=module,
    )
    return data


def _module(path: Path) -> DPOModule:
    return DPOModule(policy=PolicySpec(path=str(path)), optimizer=torch.optim.AdamW)


def _median(work: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
