"""What `rlaifv feedback correct` does."""

from collections.abc import Iterator
from pathlib import Path

from jsonargparse import lazy_instance
from rich.console import Console
from rich.table import Table

from rlaifv_pl.data.manifest import Manifest
from rlaifv_pl.feedback.corrections.llm_corrector import LLMCorrector
from rlaifv_pl.feedback.corrections.pipeline import Corrector, correct_shards
from rlaifv_pl.feedback.corrections.rule_corrector import RuleCorrector
from rlaifv_pl.feedback.engines.engine import EngineError

# A corrector is named on the command line by its class alone once it is imported here.
__all__ = ["LLMCorrector", "RuleCorrector", "correct"]

BY_RULE = lazy_instance(RuleCorrector)


def correct(
    shards: list[str] | str,
    out: str,
    corrector: Corrector = BY_RULE,
    seed: int = 0,
    samples_per_shard: int = 1000,
    link_duplicate_images: bool = False,
) -> None:
    """Write a corrective dialogue to each preference sample: shards for nSFT.

    Args:
        shards: one directory of preference shards or a list of them; a URL is copied to the cache first
            (RLAIFV_PL_CACHE).
        out: the directory of shards to write. Killed, the same command goes on where it was.
        corrector: writes the dialogues: by rule from the verdicts on the answers' claims, or a model.
        seed: decides which turns are taken, and their order.
        samples_per_shard: size of every shard but the last.
        link_duplicate_images: store equal images of a shard once. That saves their bytes, and costs other readers the
            images: `webdataset` skips links.
    """
    manifest = correct_shards(
        shards, Path(out), corrector, seed, samples_per_shard, link_duplicate_images=link_duplicate_images
    )
    table = Table("what", "number", title=f"corrected to {out}")
    for name, value in _rows(manifest):
        table.add_row(name, value)
    Console().print(table)
    if not manifest.samples:
        raise EngineError(
            "No correction was made: see the reasons above. Give pairs whose sides differ in what they claim, loosen "
            "the corrector's `rule`, or take another corrector."
        )


def _rows(manifest: Manifest) -> Iterator[tuple[str, str]]:
    notes = manifest.notes
    yield "samples", str(manifest.samples)
    for reason, count in manifest.drops.items():
        yield f"dropped: {reason}", str(count)
    yield "turns", str(notes["turns"])
    if closed := notes["yes"] + notes["no"]:
        yield "  answer yes or no", str(closed)
        yield "  share of yes", f"{notes['yes'] / closed:.1%}"
    for code, count in notes["codes"].items():
        yield f"  about {code}", str(count)
    for reason, count in notes["removed"].items():
        yield f"removed: {reason}", str(count)
