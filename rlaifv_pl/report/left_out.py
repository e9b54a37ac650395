"""Examples of what feedback left out, as rows of the page: candidates with their claims and verdicts, by reason."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from rlaifv_pl.data.bad_samples import BadSample
from rlaifv_pl.data.contact_sheet import prompt_text
from rlaifv_pl.data.manifest import MANIFEST_NAME, ManifestError, read_manifest
from rlaifv_pl.data.remote_directory import is_url
from rlaifv_pl.data.shards import ShardSet, load_shards
from rlaifv_pl.feedback.candidates.candidate_json import evidence
from rlaifv_pl.feedback.pairs.left_out import LeftOutRow, read_left_out
from rlaifv_pl.report.pairs import answer_row
from rlaifv_pl.report.thumbnails import Thumbnails

NOT_AT_HAND = "not at hand"
MOST_BESIDE = 1000
"""Directories that are looked through for the prompts."""
MEANINGS = {
    "candidate/equal_text": "The policy said the same once more for this prompt.",
    "candidate/truncated": "The limit of tokens cut it off (generate.max_new_tokens, truncated).",
    "candidate/empty": "The policy said nothing.",
    "candidate/no_form": "The splitter's model filled in no form; the same command asks again.",
    "candidate/misquoted": "The splitter's model quoted words that are not in it; the same command asks again.",
    "candidate/undivided": "The splitter could not take it apart; the same command asks again.",
    "candidate/unjudged": "The labeler answered a question about it neither yes nor no; the same command asks again.",
    "candidate/no_claims": "It claims nothing that could be judged.",
    "candidate/special_token": "It spells out a special token, such as an image's marker: no model could learn it.",
    "candidate/repeated_claim": "It makes one claim twice (distinct_claims).",
    "claim/incomplete": "The splitter's model wrote a claim without a text or a question for it.",
    "claim/no_question": "The splitter's model wrote a claim of it whose question is none.",
    "claim/misquoted": "The splitter's model wrote a claim with a quote that is not in it.",
    "claim/too_long": "A claim of it has more words than the splitter takes (most_words).",
    "pair/small_gap": "The scores are too close to tell which is better (min_gap).",
    "pair/unequal_claims": "One makes more claims than the other (equal_claims).",
    "pair/fewer_accepted": "The better one says less that was accepted (no_fewer_accepted).",
    "pair/small_margin": "The labeler is not sure enough of the difference (min_margin).",
    "pair/over_max_pairs": "A good pair, but others of the same prompt were drawn (max_pairs).",
    "pair/length_balance": "A good pair, left out so that chosen and rejected are equally long on average (balance).",
    "prompt/special_token": "What is asked holds a special token, such as an image's marker.",
    "prompt/rendered_prompt": "What is asked has been rendered by a chat template already.",
    "prompt/not_rendered": "The policy's chat template does not take its turns.",
    "prompt/no_pair": "No two candidates of this prompt made a pair; the highest and the lowest score are shown.",
}
"""Meaning of each reason of feedback, with the setting behind it."""


class PromptImages:
    """Looks for the images of prompts: where feedback took them from, and else in the pairs that it made of them.

    Args:
        made: the pairs.
        prompts: shards of the prompts, if they are at hand.
    """

    def __init__(self, made: ShardSet, prompts: ShardSet | None) -> None:
        self.made = made
        self.prompts = prompts

    def images(self, row: LeftOutRow) -> tuple[bytes, ...] | None:
        """None where they are not at hand."""
        if self.prompts is not None and row.number in range(len(self.prompts)):
            return self.prompts[row.number].images
        place = self._pairs.get(row.prompt.key)
        return None if place is None else self.made[place].images

    @cached_property
    def _pairs(self) -> dict[str, int]:
        return {key.rpartition("_p")[0]: place for place, key in enumerate(self.made.keys())}


def find_prompts(directory: str | Path, parents: Sequence[str], named: Sequence[str]) -> ShardSet | None:
    """Open the shards whose prompts feedback answered: those that are named, or else what lies beside.

    Args:
        directory: of the shards that feedback made.
        parents: hashes of the manifests that these were made from.
        named: paths of the prompts, by an option or a config; relative ones may start above `directory` as well.

    Returns:
        None where they are not found on this machine, or are no longer what they were.
    """
    if not parents or is_url(str(directory)) or any(map(is_url, named)):
        return None
    above = Path(directory).resolve().parents
    starts = [Path(), *above] if named else []
    candidates = [[start / path for path in named] for start in starts]
    for paths in (*candidates, _beside(above, parents)):
        try:
            if tuple(read_manifest(path).hash for path in paths) == tuple(parents):
                return load_shards(paths)
        except (ManifestError, BadSample, OSError):
            continue
    return None


def _beside(above: Sequence[Path], parents: Sequence[str]) -> list[Path]:
    """Directories near some shards, whose manifests have these hashes, in this order."""
    near = [path for folder in above[:2] for path in sorted(folder.glob(f"*/{MANIFEST_NAME}"))]
    found: dict[str, Path] = {}
    for path in near[:MOST_BESIDE]:
        with suppress(ManifestError, OSError):
            found.setdefault(read_manifest(path.parent).hash, path.parent)
    return [found[parent] for parent in parents if parent in found]


def left_out_rows(
    directory: str | Path, number: int, prompt_images: PromptImages, thumbnails: Thumbnails
) -> Iterator[dict[str, Any]]:
    """Rows of the page, laid out as those of pairs, with their reason; nothing of shards behind a URL.

    Args:
        number: of the directory of shards, on the page.
        thumbnails: takes up their images.

    Raises:
        ManifestError: the file of examples is damaged.
        BadSample: a prompt cannot be read.
    """
    for row in () if is_url(str(directory)) else read_left_out(Path(directory)):
        images = prompt_images.images(row)
        scores = [one.score for one in row.candidates if one.score is not None]
        yield {
            "reason": row.reason,
            "key": row.prompt.key,
            "directory": number,
            "prompt": prompt_text(row.prompt),
            "images": [NOT_AT_HAND]
            if images is None
            else [thumbnails.add(data, row.prompt.key) for data in images],
            "rejected_images": [],
            "answers": [answer_row("candidate", one.text, evidence(one)) for one in row.candidates],
            "gap": scores[0] - scores[1] if len(scores) == len(row.candidates) == 2 else None,
            "corrections": [],
        }
