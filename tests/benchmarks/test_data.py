"""The loader's stages are timed on what they are said to be timed on."""

import io

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("trl")

from benchmarks import data
from benchmarks.shapes import build
from rlaifv_pl.data.batching import epoch_order
from rlaifv_pl.data.shards import load_shards
from rlaifv_pl.seeds import run_seed


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    return data._module(build("toy", tmp_path_factory.mktemp("data") / "toy"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return data.write(tmp_path_factory.mktemp("data") / "shards", 40, data.THUMBNAIL, 10, 64)


def test_all_stages_and_a_resumed_run_are_timed():
    stages, resumed = data.measure("toy", repeats=1, photos=32, collated=24, many=100)
    assert [row[0].split(",")[0].split(":")[0] for row in stages.rows] == [
        *("index", "read", "decode", "collate"),
        *["DataModule"] * 3,
    ]
    for _, rate, times in stages.rows:
        assert rate > 0 and times == pytest.approx(rate / 11.8, abs=0.1)
    # Indexing reads headers only, and decoding all pixels.
    assert stages.rows[0][1] > 10 * stages.rows[2][1]
    assert "100 samples in 100 shards" in resumed.what
    assert all(0 <= seconds < 2 for _, seconds in resumed.rows)


def test_a_photo_has_the_size_of_one():
    encoded = data.photo(np.random.default_rng(0), *data.PHOTO)
    assert Image.open(io.BytesIO(encoded)).size == (480, 360)
    assert 30_000 < len(encoded) < 100_000


def test_a_resumed_run_begins_with_the_last_batch_of_the_epoch(module, shards, monkeypatch):
    seen = []
    collator = type(module).collator

    def watched(self, on_bad_sample):
        collate = collator(self, on_bad_sample)
        return lambda samples: seen.append([sample.key for sample in samples]) or collate(samples)

    monkeypatch.setattr(type(module), "collator", watched)
    found = data.resume(module, shards)
    samples = load_shards(shards)
    keys = list(samples.keys())
    # The longest samples are tried before, each by itself.
    batches = [batch for batch in seen if len(batch) > 1]
    assert batches == [
        [keys[index] for index in epoch_order(samples.lengths, run_seed(), 0, 8)[-data.BATCH :]]
    ]
    assert min(found.values()) > 0


def test_a_rate_counts_what_came_after_the_first_batch(module, shards, monkeypatch):
    clock = iter([10.0, 14.0])
    monkeypatch.setattr(data, "time", type("Clock", (), {"perf_counter": lambda: next(clock)}))
    assert data._loaded(module, shards, 0, collated=24) == 16 / 4.0


def test_no_two_samples_of_a_batch_share_a_tree(module, shards):
    batch = module.collator("raise")([load_shards(shards)[index] for index in range(8)])
    assert batch.layout.num_trees == len(batch.keys) == 8
