"""The ways through the package that data takes, each with what must hold of what comes out."""

import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch

from rlaifv_pl.cli.shards import show, verify
from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.collate import Collator, OnBadSample
from rlaifv_pl.data.datamodule import AlignmentDataModule
from rlaifv_pl.data.importers.importer import import_shards
from rlaifv_pl.data.reference_logps import UNKNOWN, split_by_sample
from rlaifv_pl.data.schema import check_sample
from rlaifv_pl.data.shards import ShardSet, load_shards
from rlaifv_pl.data.sidecar import CachedTensors, Sidecars
from rlaifv_pl.feedback.config import PromptSet
from rlaifv_pl.feedback.corrections.diagnosis import diagnose
from rlaifv_pl.models.chat import Chat, prompt_question
from rlaifv_pl.models.vlm import Batch
from rlaifv_pl.objectives.dpo import DPOModule
from rlaifv_pl.records import Sample
from tests import family_models
from tests.fuzz.base import Case
from tests.fuzz.truth import (
    SAMPLES,
    Breach,
    Pixels,
    check_batch,
    check_import,
    check_named,
    check_pairing,
    check_reference,
    digests,
)

MAX_LENGTH = 4000
UNKNOWABLE = {Reason.NOT_RENDERED, Reason.TOO_LONG, Reason.NO_TARGET, Reason.MISSING_ANSWER}
"""Reasons that only a model and an objective know of, so that shards without a fault may have them."""


class Reading:
    """A tiny processor with the objective's reading of samples, and whose image is which to it."""

    def __init__(self) -> None:
        _, self.processor = family_models.llava()
        self.chat = Chat(self.processor)
        self.decode = self.processor.tokenizer.decode
        self.pixels: Pixels = {}
        for key, sample in SAMPLES.items():
            batch = self.collator("raise")([sample])
            if not batch.tokens.images:
                continue
            rejected = [side for _, side in batch.layout.views for _ in sample.images]
            for digest, side in zip(digests(batch.tokens.images["pixel_values"]), rejected, strict=True):
                self.pixels[digest] = key, side

    def collator(self, on_bad_sample: OnBadSample, max_length: int | None = MAX_LENGTH) -> Collator:
        """Of preference samples."""
        return Collator(
            self.chat, lambda sample: DPOModule.dialogues(None, sample), 2, max_length, on_bad_sample
        )


class Module:
    """Stands in for the module in training: remembers what each batch was made of."""

    reading = {"objective": "fuzz"}  # noqa: RUF012
    policy = SimpleNamespace(layout="packed")

    def __init__(self, reading: Reading, compares: bool) -> None:
        self._reading, self._compares = reading, compares
        self.given: Sequence[Sample | BadSample] = ()

    def collator(self, on_bad_sample: OnBadSample) -> Callable[[Sequence[Sample | BadSample]], Batch]:
        collate = self._reading.collator(on_bad_sample)

        def remember(samples: Sequence[Sample | BadSample]) -> Batch:
            self.given = samples
            return collate(samples)

        return remember

    def known(self, samples: ShardSet, _batch_size: int, _how: dict[str, Any]) -> Sidecars | None:
        if not self._compares:
            return None
        sidecars = Sidecars(samples, "reference", {"weights": "fuzz"})
        collate = self._reading.collator("skip")
        for shard in sidecars.missing():
            sidecars.write(shard, [_number(samples, collate, number) for number in samples.numbers(shard)])
        return sidecars


def _number(samples: ShardSet, collate: Collator, number: int) -> CachedTensors:
    """In place of log-ps, the number of the sample."""
    try:
        batch = collate([samples[number]])
    except BadSample:
        return UNKNOWN
    if not batch.keys:
        return UNKNOWN
    return split_by_sample(batch, torch.full((len(batch.tokens.labels),), float(batch.keys[0][1:])))[0]


def trained(case: Case, reading: Reading, on_bad_sample: OnBadSample, with_sidecars: bool = False) -> str:
    """An epoch of batches."""
    module = Module(reading, compares=with_sidecars)
    size = {"batch_size": None, "max_tokens": 300} if with_sidecars else {"batch_size": 2}
    data = AlignmentDataModule(str(case.shards), num_workers=0, on_bad_sample=on_bad_sample, **size)
    strategy = SimpleNamespace(root_device=torch.device("cpu"), barrier=lambda: None)
    data.trainer = SimpleNamespace(
        current_epoch=0, global_rank=0, world_size=1, accumulate_grad_batches=1, is_global_zero=False,
        num_training_batches=float("inf"), strategy=strategy, lightning_module=module,
    )  # fmt: skip
    seen, dropped = [], []
    for batch in data.train_dataloader():
        seen += batch.keys
        dropped += batch.accounting.dropped
        if batch.keys:
            kept = [module.given[number] for number in batch.accounting.kept]
            check_batch(batch, kept, reading.pixels, reading.decode)
            for sample in kept:
                check_pairing(sample, case)
            if with_sidecars:
                check_reference(batch, case)
    total = len(load_shards(case.shards))
    if len(seen) + len(dropped) != total:
        raise Breach(f"{total} samples, but {len(seen)} were seen and {len(dropped)} counted as dropped")
    return f"skipped {dropped[0][1]}" if dropped else "whole"


def verified(case: Case) -> str:
    """`rlaifv shards verify`."""
    try:
        verify(str(case.shards))
    except SystemExit as end:
        if str(case.here) not in str(end):
            raise Breach(f"ends with {end}") from end
        return "faults"
    return "whole"


def read(case: Case) -> str:
    """Every sample by its number, first to last and by key, as feedback reads them too."""
    shards = load_shards(case.shards)
    prompts, faults = PromptSet(shards, range(len(shards))), []
    for index, key in enumerate(shards.keys()):
        try:
            (sample,) = prompts.read(range(index, index + 1))
            if sample.key != key:
                raise Breach(f"sample {index} is {sample.key}, listed as {key}")
            check_pairing(sample, case)
            check_sample(sample, shards.where(index))
            prompt_question(sample)
            attempt(lambda _, sample=sample: str(diagnose(sample)), case)
        except BadSample as error:
            faults.append(check_named(error, case))
    return f"faults {faults[0]}" if faults else "whole"


def shown(case: Case) -> str:
    """`rlaifv shards show`."""
    (case.here / "out").mkdir(exist_ok=True)
    try:
        show(str(case.shards), out=str(case.here / "out" / "sheet.png"), count=12)
    except ValueError as error:
        if "the shards are empty" not in str(error):
            raise
        return "empty"
    return "whole"


def imported(case: Case, on_bad: str) -> str:
    """`rlaifv shards import`, and what it made."""
    out = case.here / "out" / on_bad
    sources = sorted((case.here / "sources").glob("rows*")) or [case.here / "sources"]
    manifest = import_shards(sources, out, on_bad=on_bad, samples_per_shard=4)
    verify(str(out))
    shards = load_shards(out)
    for index in range(len(shards)):
        check_import(shards[index])
    return f"skipped {next(iter(manifest.drops))}" if manifest.drops else "whole"


def attempt(way: Callable[..., str], case: Case, *how: object) -> str:
    """The outcome of one way: `whole`, what was skipped, or the name of the error that it ended in."""
    try:
        return way(case, *how)
    except Breach:
        raise
    except Exception as error:
        return f"refused {check_named(error, case)}"


@contextmanager
def strict_output() -> Iterator[None]:
    """Standard output and error that take nothing but UTF-8, and go nowhere."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (io.TextIOWrapper(io.BytesIO(), "utf-8", "strict") for _ in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def of_shards(case: Case, reading: Reading) -> str:
    """All that reads shards; the outcome of training that skips.

    Raises:
        Breach: the ways contradict each other, or a change went by unseen.
    """
    checked, whole = attempt(verified, case), attempt(read, case)
    stopped, skipped = (attempt(trained, case, reading, how) for how in ("raise", "skip"))
    if case.rng.random() < 0.3:  # Drawing takes longer than all else.
        attempt(shown, case)
    if checked == "whole":
        if whole != "whole":
            raise Breach(f"verify finds nothing, but reading ends with {whole}")
        if stopped not in ("whole", *(f"refused {reason}" for reason in UNKNOWABLE)):
            raise Breach(f"verify finds nothing, but training ends with {stopped}")
    if stopped.startswith("skipped") or (stopped == "whole") != (skipped == "whole"):
        raise Breach(f"training that stops ends with {stopped}, one that skips with {skipped}")
    return skipped


def of_sidecars(case: Case, reading: Reading) -> str:
    """Training that reads what lies beside shards."""
    outcomes = [attempt(trained, case, reading, how, True) for how in ("raise", "skip")]
    if outcomes[0] != outcomes[1]:
        raise Breach(f"training that stops ends with {outcomes[0]}, one that skips with {outcomes[1]}")
    return outcomes[1]


def of_sources(case: Case, _reading: Reading) -> str:
    """Imports that skip and that stop.

    Raises:
        Breach: they contradict each other.
    """
    skipped, stopped = (attempt(imported, case, on_bad) for on_bad in ("skip", "raise"))
    if stopped.startswith("skipped") or (stopped == "whole") != (skipped == "whole"):
        raise Breach(f"an import that stops ends with {stopped}, one that skips with {skipped}")
    return skipped
