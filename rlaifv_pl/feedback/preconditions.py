"""Checks of prompts, settings and output before the first token is generated."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaifv_pl.data.atomic import writing
from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.images import open_images
from rlaifv_pl.data.manifest import MANIFEST_NAME, ManifestError, read_manifest
from rlaifv_pl.data.schema import MAX_KEY_LENGTH
from rlaifv_pl.data.shard_writer import UNFINISHED_NAME
from rlaifv_pl.data.shards import ShardSet
from rlaifv_pl.feedback.config import FeedbackConfig, PromptSet
from rlaifv_pl.feedback.engines.engine import EngineError

STAGES = "stages"
"""Directory of the chunks, within that of the shards."""


def pair_key(key: str, number: int) -> str:
    """Return the key of a prompt's pair.

    >>> pair_key("cat-1", 0)
    'cat-1_p0'
    """
    return f"{key}_p{number}"


def check_feedback(feedback: FeedbackConfig, prompts: PromptSet, out: Path) -> None:
    """Refuse settings, prompts and directories that would fail after hours of work.

    Raises:
        EngineError: no pair can come of the settings, or there are no prompts.
        BadSample: `duplicate_key` or `bad_key`.
        FileExistsError: `out` is one of the sources, or holds shards that another command made.
        WriteError: `out` cannot be written.
    """
    if feedback.sampling.n < 2:
        raise EngineError(
            f"feedback.sampling.n is {feedback.sampling.n}, and a pair needs two candidates of a prompt. Give "
            "--feedback.sampling.n 2 or more, and --feedback.sampling.temperature above 0."
        )
    if not prompts.numbers:
        raise EngineError(
            "there are no prompts to answer: give --prompts shards that hold some, or raise --limit"
        )
    check_keys(prompts, feedback.pairing.max_pairs)
    check_out(out, {Path(shard.path).parent for shard in prompts.shards.shards}, "judged")


def check_keys(prompts: PromptSet, max_pairs: int) -> None:
    """Check that each pair can be stored under its key.

    Raises:
        BadSample: `duplicate_key` or `bad_key`.
    """
    check_distinct(prompts.shards, prompts.numbers, "prompts")
    for number, key in zip(prompts.numbers, prompts.keys(), strict=True):
        longest = pair_key(key, max_pairs - 1)
        if len(longest) > MAX_KEY_LENGTH:
            raise BadSample(
                Reason.BAD_KEY,
                prompts.shards.where(number),
                f"expected a key that leaves room for the number of its pair, at most "
                f"{MAX_KEY_LENGTH - len(longest) + len(key)} characters, got {len(key)}. Store the prompts again "
                "under shorter keys",
            )


def check_distinct(shards: ShardSet, numbers: Sequence[int], what: str) -> None:
    """Check that samples have different keys.

    Args:
        shards: the shards.
        numbers: numbers of the samples in them.
        what: name of the samples, for the error.

    Raises:
        BadSample: `duplicate_key`.
    """
    keys, first = list(shards.keys()), dict[str, int]()
    for number in numbers:
        if (other := first.setdefault(keys[number], number)) != number:
            raise BadSample(
                Reason.DUPLICATE_KEY,
                f"{shards.where(other)} and {shards.where(number)}",
                f"expected {what} with a key each, got one key twice. Do one directory after the other, each with an "
                "--out of its own: training takes several directories",
            )


def check_samples(source: ShardSet) -> None:
    """Check that all samples of some shards can be stored together.

    Raises:
        BadSample: `duplicate_key`.
    """
    check_distinct(source, range(len(source)), "samples")


def check_out(out: Path, sources: Collection[Path], mark: str) -> None:
    """Check that shards can be written to a directory, and replace only shards of the same command.

    Args:
        out: the directory.
        sources: directories that are read.
        mark: field of a manifest's recipe that identifies this command.

    Raises:
        FileExistsError: it is one of the sources, or holds shards that something else made.
        WriteError: it cannot be written.
    """
    if out.resolve() in [source.resolve() for source in sources]:
        raise FileExistsError(f"{out} holds what is read, and would be overwritten: give another --out.")
    is_finished = (out / MANIFEST_NAME).is_file()
    begun = (out / UNFINISHED_NAME).is_file() and not is_finished
    is_own = begun or (out / STAGES).is_dir() or (is_finished and mark in _recipe(out))
    if not is_own and any(out.glob("*.tar")):
        raise FileExistsError(
            f"{out} holds shards that something else made: give another --out, or delete them."
        )
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".can-be-written"
        probe.touch()
        probe.unlink(missing_ok=True)


def prompt_fault(prompts: PromptSet, place: int) -> BadSample | None:
    """Return the fault of a prompt that cannot be read, or None.

    Args:
        prompts: the prompts.
        place: index of the prompt in `prompts.numbers`.
    """
    try:
        (sample,) = prompts.read(range(place, place + 1))
        open_images(sample.images, sample.key)
    except BadSample as fault:
        return fault
    return None


def _recipe(out: Path) -> Mapping[str, Any]:
    try:
        return read_manifest(out).recipe
    except ManifestError:
        return {}
