"""One metric of each kind with a completion for each of its items: what laws of all metrics are tested on."""

import json

from rlaifv_pl.evaluation.amber.count import ImageTruth, Vocabulary
from rlaifv_pl.evaluation.amber.metric import Amber, Question
from rlaifv_pl.evaluation.chair.metric import Chair
from rlaifv_pl.evaluation.hallusion import HallusionBench
from rlaifv_pl.evaluation.judged.llava_bench import LlavaBench
from rlaifv_pl.evaluation.judged.mmhal import MMHal
from rlaifv_pl.evaluation.judged.objhal import ObjHal
from rlaifv_pl.evaluation.judged.refomb import RefoMB
from rlaifv_pl.evaluation.mme import MME, MmeQuestion
from rlaifv_pl.evaluation.mmstar import MMStar
from rlaifv_pl.evaluation.pope import Pope
from rlaifv_pl.evaluation.table_metric import TableMetric
from rlaifv_pl.evaluation.vqa import VQA

CAPTIONS = [
    "A dog.", "A cat and a dog.", "", "Two men and a dog.", "A car near a bus.", "Sheep.", "A dog and a train.",
]  # fmt: skip
WORDS = ["Yes", "No", "no", "Yes", "Maybe", "No", "Yes"]
SIZE = len(CAPTIONS)


def metrics() -> dict[str, tuple[TableMetric, list[str]]]:
    """Fresh metrics over seven items each, with what a model says to them; some of it wrong."""
    labels = [1, 0, 1, 0, 1, 0, 1]
    mme = [
        MmeQuestion(
            category="count", image=f"{n // 2}.jpg", text="?", label="Yes" if n % 2 else "No", where=""
        )
        for n in range(SIZE)
    ]
    vocabulary = Vocabulary(related={"dog": [], "cat": ["dog"], "car": []}, neutral=())
    kinds = ("existence", "state", "number", "action")
    asked = [ImageTruth(truth=["dog", "car"], imagined=["cat"])] * 3
    asked += [Question(kind=kind, label=number % 2) for number, kind in enumerate(kinds)]
    return {
        "chair A": (Chair([{"dog"}] * SIZE, "A"), CAPTIONS),
        "chair C": (Chair([{"dog"}] * SIZE, "C"), CAPTIONS),
        "amber": (Amber(asked, vocabulary), [text.lower() for text in CAPTIONS[:3]] + WORDS[3:]),
        "pope": (Pope(labels), WORDS),
        "mmstar": (
            MMStar(list("ABABABA"), [("math", "geometry")] * 4 + [("logic", "code")] * 3),
            list("AABBABA"),
        ),
        "mme": (MME(mme), WORDS),
        "hallusionbench": (HallusionBench(labels, [0, 0, 1, 1, 2, 2, 3], [0, 1, 0, 1, 0, 1, 0]), WORDS),
        "vqa": (
            VQA([["red"] * n + ["blue"] * (10 - n) for n in range(SIZE)]),
            ["red"] * 4 + ["blue", "green", "red"],
        ),
        "mmhal": (MMHal(["a"] * 4 + ["b"] * 3, "d"), [f"Rating: {n}" for n in range(SIZE)]),
        "objhal": (
            ObjHal([{"dog"}] * SIZE, "d"),
            [json.dumps({"objects": text.split(), "answer": text}) for text in CAPTIONS],
        ),
        "llava_bench": (
            LlavaBench(["a"] * 4 + ["b"] * 3, "d"),
            [f"{9 - n % 2} {n + 1.5}" for n in range(SIZE)],
        ),
        "refomb": (
            RefoMB([0, 0, 0, 0, 1, 1, 1], list("ababaab"), "d"),
            ["1 1", "0 -1", "-1 0", "1", "0 0", "1 -1", "-1 1"],
        ),
    }
