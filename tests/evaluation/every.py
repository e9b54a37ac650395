"""One benchmark of each kind with a completion for each of its items: what laws of all metrics are tested on."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from rlaifv_pl.evaluation.amber.benchmark import AmberBenchmark
from rlaifv_pl.evaluation.benchmark import Benchmark
from rlaifv_pl.evaluation.benchmark_files import FileRow
from rlaifv_pl.evaluation.chair.benchmark import ChairBenchmark
from rlaifv_pl.evaluation.hallusion import HallusionBenchmark
from rlaifv_pl.evaluation.judged.llava_bench import LlavaBenchmark
from rlaifv_pl.evaluation.judged.mmhal import MmhalBenchmark
from rlaifv_pl.evaluation.judged.objhal import ObjHalBenchmark
from rlaifv_pl.evaluation.judged.refomb import RefombBenchmark
from rlaifv_pl.evaluation.mme import MmeBenchmark
from rlaifv_pl.evaluation.mmstar import MMStarBenchmark
from rlaifv_pl.evaluation.pope import PopeBenchmark, PopeQuestion
from rlaifv_pl.evaluation.table_metric import TableMetric
from rlaifv_pl.evaluation.vqa import VqaBenchmark

CAPTIONS = [
    "A dog.", "A cat and a dog.", "", "Two men and a dog.", "A car near a bus.", "Sheep.", "A dog and a train.",
]  # fmt: skip
WORDS = ["Yes", "No", "no", "Yes", "Maybe", "No", "Yes"]
SIZE = len(CAPTIONS)
LABELS = ["yes", "no"] * 3 + ["yes"]


def rows(fields: dict[str, list], **common) -> list[FileRow]:
    """A row for each item, with a value of each list."""
    return [
        FileRow({**common, **{name: values[n] for name, values in fields.items()}}, f"row {n}")
        for n in range(SIZE)
    ]


def amber() -> AmberBenchmark:
    """Three descriptions and four questions."""
    kinds = ["discriminative-hallucination"] + [
        f"discriminative-attribute-{kind}" for kind in ("state", "number", "action")
    ]
    truths = [{"type": "generative", "truth": ["dog", "car"], "hallu": ["cat"]}] * 3
    truths += [{"type": kind, "truth": "yes" if number % 2 else "no"} for number, kind in enumerate(kinds)]
    with TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "query").mkdir()
        for name, content in (
            ("annotations.json", [{"id": n, **truth} for n, truth in enumerate(truths)]),
            ("query/query_all.json", [{"id": n, "image": "1.jpg", "query": "?"} for n in range(SIZE)]),
            ("relation.json", {"dog": [], "cat": ["dog"], "car": []}),
        ):
            (home / name).write_text(json.dumps(content))
        (home / "safe_words.txt").write_text("")
        return AmberBenchmark(home)


def benchmarks() -> dict[str, tuple[Benchmark, list[str]]]:
    """Benchmarks of seven items each, with completions, some of them wrong."""
    numbers, judge, kinds = [*range(SIZE)], {"judge": "d"}, ["a"] * 4 + ["b"] * 3
    images = [f"{n // 2}.jpg" for n in numbers]
    objects = {str(n): frozenset({"dog"}) for n in numbers}
    questions = [PopeQuestion(question_id=n, image="", text="?", label=LABELS[n]) for n in numbers]
    mme = rows({"image": images, "answer": ["No", "Yes"] * 3 + ["No"]}, category="count", question="?")
    figures = {
        "question_id": list("0011223"), "figure_id": list("0101010"), "gt_answer": list("1010101")
    }  # fmt: skip
    hallusion = rows(
        figures, category="VS", subcategory="map", set_id="0", visual_input="1", question="?", filename="a"
    )
    mmstar = rows(
        {"index": numbers, "answer": list("ABABABA"), "category": ["math"] * 4 + ["logic"] * 3,
         "l2_category": ["geometry"] * 4 + ["code"] * 3},
        question="?",
    )  # fmt: skip
    vqa = rows(
        {"question_id": numbers, "answers": [["red"] * n + ["blue"] * (10 - n) for n in numbers]}, image_id=1
    )
    mmhal = rows({"image_id": [*map(str, numbers)], "question_type": kinds}, question="?", rating=1, **judge)
    objhal = rows({"image_id": numbers}, question="?", objects=[], **judge)
    llava = rows({"question_id": numbers, "category": kinds}, content="", **judge)
    refomb = rows({"image_url": images, "question": [*map(str, numbers)], "run": [0] * 4 + [1] * 3,
                   "type": list("ababaab")}, score=0, **judge)  # fmt: skip
    return {
        "chair A": (ChairBenchmark(objects, "A"), CAPTIONS),
        "chair C": (ChairBenchmark(objects, "C"), CAPTIONS),
        "amber": (amber(), [text.lower() for text in CAPTIONS[:3]] + WORDS[3:]),
        "pope": (PopeBenchmark(questions), WORDS),
        "mmstar": (MMStarBenchmark(mmstar), list("AABBABA")),
        "mme": (MmeBenchmark(mme), WORDS),
        "hallusionbench": (HallusionBenchmark(hallusion), WORDS),
        "vqa": (VqaBenchmark(vqa, {}), ["red"] * 4 + ["blue", "green", "red"]),
        "mmhal": (MmhalBenchmark(mmhal), [f"Rating: {n}" for n in numbers]),
        "objhal": (
            ObjHalBenchmark(objhal, objects),
            [json.dumps({"objects": text.split(), "answer": text}) for text in CAPTIONS],
        ),
        "llava_bench": (LlavaBenchmark(llava), [f"{9 - n % 2} {n + 1.5}" for n in numbers]),
        "refomb": (RefombBenchmark(refomb), ["1 1", "0 -1", "-1 0", "1", "0 0", "1 -1", "-1 1"]),
    }


def metrics() -> dict[str, tuple[TableMetric, list[str]]]:
    """Fresh metrics of all benchmarks, with completions."""
    return {name: (TableMetric(benchmark), said) for name, (benchmark, said) in benchmarks().items()}
