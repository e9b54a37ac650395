"""A run and shards made by hand, so that a test knows every number of them."""

import csv
import io
import json
from pathlib import Path

import yaml
from PIL import Image

from rlaifv_pl.data.shards import ShardWriter
from rlaifv_pl.records import Sample
from rlaifv_pl.rounds.ledger import Ledger

HOSTILE = "</script><script>window.ran = 1</script><img src=x onerror='window.ran = 1'>{{DATA}} & \u2028 <!--"
"""What would run, or break the file, if it were ever taken for more than text."""

STEPS = 6


def image(seed: int, size: tuple[int, int] = (40, 30)) -> bytes:
    file = io.BytesIO()
    colour = (37 * seed % 256, 91 * seed % 256, 53 * seed % 256)
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def claim(text: str, part: str, yes: float) -> dict:
    """A claim about `part` of a text, as the evidence of a sample has it; dots stand between several stretches."""
    starts = [text.index(word) for word in part.split(" ... ")]
    return {
        "text": part,
        "question": f"is there {part}?",
        "spans": [
            [start, start + len(word)] for start, word in zip(starts, part.split(" ... "), strict=True)
        ],
        "yes": yes,
        "no": 1 - yes,
    }


def judged_pair(number: int, gap: int = 1, prompt: str = "what is there?") -> Sample:
    """A pair with a rejected claim in its worse side; an emoji stands before every claim."""
    chosen, rejected = (
        f"\U0001f408 there is a cat {number}.",
        f"\U0001f408 there is a dog and a kite {number}.",
    )
    evidence = {
        "chosen": {"score": 0.0, "seed": 1, "claims": [claim(chosen, "a cat", 0.98)]},
        "rejected": {
            "score": float(-gap),
            "seed": 2,
            "claims": [claim(rejected, "a dog", 0.75), claim(rejected, "a kite", 0.03)],
        },
    }
    return Sample(
        key=f"k{number}",
        prompt=prompt,
        images=(image(number // 2),),
        chosen=chosen,
        rejected=rejected,
        evidence=evidence,
    )


def write(directory: Path, samples: list[Sample], drops: dict[str, int] | None = None, **options) -> Path:
    with ShardWriter(directory, recipe={"by": "hand"}, **options) as writer:
        for sample in samples:
            writer.write(sample)
        for reason, count in (drops or {}).items():
            writer.drop(reason, count)
    return directory


def metrics() -> list[dict[str, float]]:
    """Rows of `metrics.csv`: loss falls by a tenth a step, chosen rises, rejected falls."""
    return [
        {
            "epoch": step // 3 + 1,
            "step": step,
            "train/loss": 0.7 - 0.1 * step,
            "train/rewards/chosen": 0.25 * step,
            "train/rewards/rejected": -0.5 * step,
        }
        for step in range(STEPS)
    ]


def write_metrics(run: Path, rows: list[dict[str, float]]) -> None:
    run.mkdir(parents=True, exist_ok=True)
    with open(run / "metrics.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def config(**more) -> dict:
    rounds = {"class_path": "rlaifv_pl.rounds.Rounds", "init_args": {"prompts": "scenes", "epochs": 1}}
    return {
        "seed_everything": 7,
        "trainer": {"callbacks": [rounds]},
        "model": {"class_path": "rlaifv_pl.objectives.DPOModule", "init_args": {"policy": {"path": "tiny"}}},
    } | more


def write_run(run: Path, pairs: int = 30) -> Path:
    """A finished run of two rounds: round 1 with gaps of 1, round 2 with gaps 1, 2 and 3 in turn."""
    write_metrics(run, metrics())
    (run / "config.yaml").write_text(yaml.safe_dump(config(note=HOSTILE)))
    ledger = Ledger(run / "rounds")
    ledger.note(0, figures={"instance": 0.1, "recall": 0.9, "length": 15.5}, seconds={"measure": 2.0})
    for number in (1, 2):
        gaps = [1] * pairs if number == 1 else [1 + place % 3 for place in range(pairs)]
        samples = [judged_pair(number * 1000 + place, gap) for place, gap in enumerate(gaps)]
        if number == 2:
            samples[0] = Sample(key="hostile", prompt=HOSTILE, chosen=HOSTILE, rejected=f"no {HOSTILE}")
        drops = {"pair/small_gap": 11 * number, "prompt/no_pair": number}
        write(run / "rounds" / str(number), samples, drops, round=number)
        ledger.note(number, figures={"instance": 0.1 / (number + 1), "recall": 0.9, "length": 15.0})
        ledger.note(number, pairs=pairs, drops=drops, agreement=0.99)
        ledger.note(number, seconds={"generate": 3.0, "train": 4.5 * number})
    (run / "summary.json").write_text(json.dumps({"rounds": [], "seed": 7, "seconds": 20.5}))
    return run
