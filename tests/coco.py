"""Photos as test data: 128 of COCO's with their objects, or drawn stand-ins, turned into samples by a rule.

The rule needs no model: a sentence says which objects are in the photo and how many; its rejected twin
names one class that is absent and miscounts it. So the right answer to every check is known.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from datasets import Dataset, Features, Image, List, Value

from rlaifv_pl.records import Correction, Sample
from tests.drawn_photos import drawn_photos

REAL = Path(
    os.environ.get("RLAIFV_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data" / "coco")
)
ROOT = REAL if (REAL / "objects.json").is_file() else drawn_photos()
PROMPT = "Describe the photo."

needs_real_photos = pytest.mark.skipif(
    ROOT != REAL,
    reason=f"no photos in {REAL}: set RLAIFV_TEST_DATA to a folder with images/*.jpg and objects.json",
)


@dataclass(frozen=True)
class Photo:
    """One photo and what is on it."""

    name: str
    counts: dict[str, int]
    absent: str
    """A class that is on other photos, but not on this one."""

    @property
    def path(self) -> Path:
        return ROOT / "images" / f"{self.name}.jpg"

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()

    @property
    def replaced(self) -> str:
        """The class that the rejected sentence leaves out; empty where no class is known."""
        return next(iter(self.counts), "")

    @property
    def chosen(self) -> str:
        return _sentence(self.counts)

    @property
    def rejected(self) -> str:
        """`chosen` with the first class replaced by an absent one, and its count by one more."""
        others = {name: count for name, count in self.counts.items() if name != self.replaced}
        return _sentence({self.absent: self.counts.get(self.replaced, 0) + 1, **others})


def photos() -> list[Photo]:
    """All photos, by name."""
    objects = json.loads((ROOT / "objects.json").read_text())
    classes = sorted({name for photo in objects.values() for name in photo["counts"]})
    result = []
    for number, (name, photo) in enumerate(sorted(objects.items())):
        absent = [other for other in classes if other not in photo["counts"]]
        result.append(Photo(name, photo["counts"], absent[number % len(absent)]))
    return result


def write_trl(directory: Path) -> Path:
    """Conversational preference rows as TRL wants them: a parquet with embedded images."""
    rows = [
        {
            "prompt": [
                {
                    "role": "user",
                    "content": [{"type": "image", "text": None}, {"type": "text", "text": PROMPT}],
                }
            ],
            "chosen": [_answer(photo.chosen)],
            "rejected": [_answer(photo.rejected)],
            "images": [{"bytes": photo.data, "path": None}],
        }
        for photo in photos()
    ]
    message = {"role": Value("string"), "content": List({"type": Value("string"), "text": Value("string")})}
    features = Features(
        {"prompt": List(message), "chosen": List(message), "rejected": List(message), "images": List(Image())}
    )
    Dataset.from_list(rows, features=features).to_parquet(path := directory / "trl.parquet")
    return path


def write_rlaifv(directory: Path) -> Path:
    """Rows with the columns of RLAIF-V's training parquet."""
    rows = [
        {
            "ds_name": "coco",
            "image": {"bytes": photo.data, "path": photo.path.name},
            "question": PROMPT,
            "chosen": photo.chosen,
            "rejected": photo.rejected,
            "origin_dataset": "COCO",
            "origin_split": json.dumps({"model": "rule", "type": "detailed description"}),
            "idx": str(number),
            "image_path": photo.path.name,
        }
        for number, photo in enumerate(photos())
    ]
    Dataset.from_list(rows).cast_column("image", Image()).to_parquet(path := directory / "rlaifv.parquet")
    return path


def write_llava(directory: Path) -> Path:
    """LLaVA's SFT rows, images as paths below `ROOT`."""
    rows = [
        {
            "id": photo.name,
            "image": f"images/{photo.path.name}",
            "conversations": [
                {"from": "human", "value": f"<image>\n{PROMPT}"},
                {"from": "gpt", "value": photo.chosen},
            ],
        }
        for photo in photos()
    ]
    path = directory / "llava.json"
    path.write_text(json.dumps(rows))
    return path


def nsft_samples() -> list[Sample]:
    """Pairs with the dialogue that mends the rejected side, a question for each of its errors."""
    return [
        Sample(
            key=f"coco_{photo.name}",
            prompt=PROMPT,
            images=(photo.data,),
            chosen=photo.chosen,
            rejected=photo.rejected,
            corrections=_corrections(photo),
            provenance={"source": "coco", "generator": "rule"},
        )
        for photo in photos()
    ]


def _corrections(photo: Photo) -> tuple[Correction, ...]:
    absent = Correction(
        question=f"Is there a {photo.absent} in the photo?",
        answer=f"No, there is no {photo.absent}.",
        codes=("obj.absent",),
    )
    if not photo.replaced:
        return (absent,)
    count = photo.counts[photo.replaced]
    missed = Correction(
        question=f"Is there a {photo.replaced} in the photo?",
        answer=f"Yes, I count {count}.",
        codes=("obj.missed", "obj.count"),
    )
    return (absent, missed)


def _sentence(counts: dict[str, int]) -> str:
    *most, last = [_quantity(name, count) for name, count in counts.items()] or ["none of the usual objects"]
    return f"The photo shows {', '.join(most)} and {last}." if most else f"The photo shows {last}."


def _quantity(name: str, count: int) -> str:
    plural = "es" if name.endswith(("s", "sh", "ch")) else "s"
    return f"{count} {name}" if count == 1 else f"{count} {name}{plural}"


def _answer(text: str) -> dict:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}
