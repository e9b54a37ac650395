"""`rlaifv judge mmhal`: saved answers to reviews, by a language model."""

from pathlib import Path

from rich.console import Console

from rlaifv_pl.feedback.engine import Engine
from rlaifv_pl.metrics.judged.mmhal import WORDING, MmhalBenchmark, MmhalJudge


def mmhal(
    responses: str, out: str, judge: Engine, name: str, memory: str | None = None, wording: str = WORDING
) -> None:
    """Have saved answers to MMHal-Bench reviewed; `rlaifv evaluate --metric mmhal` makes figures of the reviews.

    Args:
        responses: the authors' template with a `model_answer` in each row.
        out: JSON to write: the same with `review`, `rating` and `judge` in each row.
        judge: the model that reviews, such as `rlaifv_pl.feedback.engines.openai.OpenAIEngine` with
            `--judge.model NAME`; it sees no image.
        name: of the judge, which the figures bear.
        memory: file that keeps reviews: what was paid for once is not asked again.
        wording: of the request, with {contents}, {question}, {right} and {answer}; its hash is in the judge's name.
    """
    judge_of = MmhalJudge(name=name, engine=judge, wording=wording, memory=Path(memory) if memory else None)
    lacking = judge_of.review(MmhalBenchmark.load(Path(responses)), Path(out))
    Console().print(f"reviews are in {out}; answers without one: {lacking}", soft_wrap=True)
