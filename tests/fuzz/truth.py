"""Whether what comes out belongs together, and errors are named: the harness's own arithmetic, not the package's."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from rlaifv_pl.data.bad_samples import BadSample
from rlaifv_pl.data.importers.sources import SourceError
from rlaifv_pl.data.manifest import ManifestError
from rlaifv_pl.data.sidecar import SidecarError
from rlaifv_pl.models.vlm import Batch
from rlaifv_pl.records import Sample
from tests.fuzz.base import ALL, COUNT, FORMATS, Case, photo, sample, word

PARTS = ("prompt", "chosen", "rejected", "completion", "file")
SIDES = ("first", "second", "rejected")
LONGEST_MESSAGE = 2000


class Breach(Exception):
    """Something that must never happen."""


SAMPLES = {f"s{number}": sample(number) for number in range(COUNT)}
WORDS = {word(number, part): f"s{number}" for number in range(COUNT) for part in PARTS} | {
    word(99, "canary"): "canary"
}
PHOTOS = {
    hashlib.sha256(photo(number, side, format)).digest(): f"s{number}"
    for number in range(COUNT)
    for side in SIDES
    for format in FORMATS
} | {hashlib.sha256(photo(99, "canary", "PNG")).digest(): "canary"}


def check_named(error: Exception, case: Case) -> str:
    """The name of an error of ours; any other is a breach, and so is a message that names no place.

    Raises:
        Breach: it is another, or nobody could read it, or learn from it where to look.
    """
    if not isinstance(error, BadSample | ManifestError | SidecarError | SourceError | FileNotFoundError):
        raise Breach(f"{type(error).__name__}: {str(error)[:500]!r}") from error
    if isinstance(error, FileNotFoundError) and error.errno is not None:
        raise Breach(f"an error of the system: {error}") from error
    text = str(error)
    if len(text) > LONGEST_MESSAGE:
        raise Breach(f"{type(error).__name__} says {len(text)} characters: {text[:300]!r}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Breach(f"{type(error).__name__} cannot be printed: {text[:300]!r}") from error
    if str(case.here) not in text and not text.startswith("sample "):
        raise Breach(f"{type(error).__name__} names no place: {text[:300]!r}")
    return str(error.reason) if isinstance(error, BadSample) else type(error).__name__


def _whose(text: str, images: Iterable[bytes]) -> set[str]:
    found = {key for mark, key in WORDS.items() if mark in text}
    return found | {PHOTOS[digest] for data in images if (digest := hashlib.sha256(data).digest()) in PHOTOS}


def check_pairing(read: Sample, case: Case) -> None:
    """A sample is as it was written, or has been damaged itself, and then shows nothing of another.

    Raises:
        Breach: it is not.
    """
    whose = _whose(repr(read), (*read.images, *read.rejected_images))
    if not whose <= {read.key}:
        raise Breach(f"sample {read.key} shows what belongs to {sorted(whose)}")
    if read.key in SAMPLES and not case.touched & {read.key, ALL} and read != SAMPLES[read.key]:
        raise Breach(f"sample {read.key} was not damaged, but comes as {str(read)[:300]}")


def check_import(read: Sample) -> None:
    """What rows become shows one row's, whatever its key.

    Raises:
        Breach: it does not.
    """
    whose = _whose(repr(read), (*read.images, *read.rejected_images))
    if len(whose) > 1 or "canary" in whose:
        raise Breach(f"sample {read.key} shows what belongs to {sorted(whose)}")


Pixels = dict[bytes, tuple[str, bool]]
"""Of each image as the model takes it: whose it is, and whether of the rejected side."""


def digests(pixels: torch.Tensor) -> list[bytes]:
    """Of each image of a batch."""
    return [hashlib.sha256(image.numpy().tobytes()).digest() for image in pixels]


def check_batch(batch: Batch, samples: Sequence[Sample], pixels: Pixels, decode: Any) -> None:
    """Rows and images of a batch belong to the samples whose keys it has.

    Args:
        batch: to check.
        samples: that it was made of, in the order of its keys.
        pixels: whose which image is.
        decode: of token ids to text.

    Raises:
        Breach: they do not.
    """
    if [read.key for read in samples] != batch.keys:
        raise Breach(f"batch of {batch.keys} was made of {[read.key for read in samples]}")
    width = batch.tokens.rows["input_ids"].shape[1]
    for row, place in {
        *zip(
            (batch.tokens.logit_index // width).tolist(),
            (batch.tokens.sequence_id % len(samples)).tolist(),
            strict=True,
        )
    }:
        whose = _whose(decode(batch.tokens.rows["input_ids"][row]), ())
        if not whose <= {batch.keys[place]}:
            raise Breach(f"a row of sample {batch.keys[place]} has words of {sorted(whose)}")
    found = digests(batch.tokens.images["pixel_values"]) if batch.tokens.images else []
    for place, rejected in batch.layout.views:
        read = samples[place]
        count = len(read.rejected_images if rejected else read.images)
        for digest in found[:count]:
            owner = pixels.get(digest, (read.key, rejected))
            if owner != (read.key, rejected):
                raise Breach(f"sample {read.key} is shown the image of {owner[0]}")
        found = found[count:]
    if found:
        raise Breach(f"batch of {batch.keys} has {len(found)} images of nobody")


def check_reference(batch: Batch, case: Case) -> None:
    """Log-ps from beside the shards are those of their samples: the fuzzer wrote each sample's number.

    Raises:
        Breach: they are not.
    """
    numbers = torch.tensor([float(key[1:]) for key in batch.keys])
    expected = numbers[batch.tokens.sequence_id % len(batch.keys)]
    if not case.loose and not torch.equal(batch.precomputed.reference_logps.float(), expected):
        raise Breach(f"log-ps of {batch.keys} are {batch.precomputed.reference_logps.tolist()[:9]}")
