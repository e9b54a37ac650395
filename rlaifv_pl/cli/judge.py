"""`rlaifv judge`: saved answers to reviews, by a language model; `rlaifv evaluate` makes figures of the reviews."""

from pathlib import Path
from typing import TypedDict, Unpack

from rich.console import Console
from rich.table import Table

from rlaifv_pl.evaluation.judged import llava_bench as llava
from rlaifv_pl.evaluation.judged import mmhal as mmhal_bench
from rlaifv_pl.evaluation.judged import objhal as object_halbench
from rlaifv_pl.evaluation.judged import refomb_judge
from rlaifv_pl.evaluation.judged.llava_judge import review_llava_bench
from rlaifv_pl.evaluation.judged.mmhal import MmhalBenchmark, review_mmhal
from rlaifv_pl.evaluation.judged.objhal import ObjHalBenchmark, review_objhal
from rlaifv_pl.evaluation.judged.refomb_judge import Runs, review_refomb
from rlaifv_pl.evaluation.judged.reviews import Judge, ReviewOutcome, read_wording
from rlaifv_pl.evaluation.rank_shares import PARTS_SUFFIX
from rlaifv_pl.feedback.engines.engine import Engine, EngineError


class Asking(TypedDict, total=False):
    """How a judge is asked.

    Args:
        cache: file that keeps reviews by what was asked: what was paid for once is not asked again. Unless given,
            one beside the parts of `out`.
        template: file with another wording of the request, which names the same places in braces; its hash is in the
            judge's name.
    """

    cache: str | None
    template: str | None


class AskingTwice(TypedDict, total=False):
    """How a judge is asked about answers, then about its review of them.

    Args:
        cache: file that keeps reviews by what was asked: what was paid for once is not asked again. Unless given,
            one beside the parts of `out`.
        template: file with another wording of the first request, with {description}, {question}, {reference} and
            {answer}; its hash is in the judge's name.
        fewer_template: and of the second, with {review}.
        runs: times that each answer is reviewed, each with a seed of its own; 3 unless given. A judge that writes
            greedily says the same each time, and then says so: `--judge.fill_temperature 0.7` draws.
        seed: that the runs' seeds come from; 0 unless given.
    """

    cache: str | None
    template: str | None
    fewer_template: str | None
    runs: int
    seed: int


def mmhal(responses: str, out: str, judge: Engine, name: str, **asking: Unpack[Asking]) -> None:
    """Have saved answers to MMHal-Bench reviewed, for `rlaifv evaluate --metric mmhal`.

    Figures can be compared under one judge and one wording only; both are in the judge's name. Killed anywhere,
    the same command goes on where it was; several processes share the work, as of `rlaifv respond`.

    Args:
        responses: the authors' template with a `model_answer` in each row.
        out: JSON to write: the same with `review`, `rating` and `judge` in each row.
        judge: the model that reviews, such as `rlaifv_pl.feedback.engines.openai_engine.OpenAIEngine` with
            `--judge.model NAME`; it sees no image.
        name: of the judge, which the figures bear.
        asking: cache, and template with {contents}, {question}, {right} and {answer}.
    """
    wording = read_wording(mmhal_bench.WORDING, asking.get("template"))
    answers = MmhalBenchmark.load(Path(responses))
    _show(review_mmhal(answers, _judge(name, judge, asking.get("cache"), out), wording, Path(out)), out)


def objhal(
    responses: str,
    out: str,
    judge: Engine,
    name: str,
    questions: str | None = None,
    **asking: Unpack[Asking],
) -> None:
    """Have the objects that saved answers to Object HalBench name listed, for `rlaifv evaluate --metric objhal`.

    Figures can be compared under one judge and one wording only; both are in the judge's name. Killed anywhere,
    the same command goes on where it was; several processes share the work, as of `rlaifv respond`.

    Args:
        responses: JSON lines of image_id, question (or prompt) and answer (or text); an answer of three words or less
            names no objects, and no judge is asked.
        out: JSON lines to write: the same with `objects` and `judge` in each row.
        judge: the model that lists, as of `rlaifv judge mmhal`; it sees no image.
        name: of the judge, which the figures bear.
        questions: JSON lines of image_id and question, one for each answer in its order, if the answers do not say
            what they are about.
        asking: cache, and template with {question} and {answer}.
    """
    wording = read_wording(object_halbench.WORDING, asking.get("template"))
    answers = ObjHalBenchmark.of_answers(Path(responses), Path(questions) if questions else None)
    _show(review_objhal(answers, _judge(name, judge, asking.get("cache"), out), wording, Path(out)), out)


def llava_bench(
    responses: str, ground_truth: str, out: str, judge: Engine, name: str, **asking: Unpack[Asking]
) -> None:
    """Have saved answers to LLaVA-Bench reviewed, in the wild or COCO, for `rlaifv evaluate --metric llava_bench`.

    Figures can be compared under one judge and one wording only; both are in the judge's name. Killed anywhere,
    the same command goes on where it was; several processes share the work, as of `rlaifv respond`.

    Args:
        responses: JSON lines of question_id and text.
        ground_truth: directory of the official files: questions, contexts (or captions and boxes) and gpt4's answers.
        out: JSON lines to write, in the form of the authors' reviews.
        judge: the model that reviews, as of `rlaifv judge mmhal`; it sees no image.
        name: of the judge, which the figures bear.
        asking: cache, and template with {context}, {question}, {reference} and {answer}.
    """
    wording = read_wording(llava.WORDING, asking.get("template"))
    who = _judge(name, judge, asking.get("cache"), out)
    _show(review_llava_bench(Path(ground_truth), Path(responses), who, wording, Path(out)), out)


def refomb(
    responses: str, ground_truth: str, out: str, judge: Engine, name: str, **asking: Unpack[AskingTwice]
) -> None:
    """Have saved answers to RefoMB compared with a reference's, for `rlaifv evaluate --metric refomb`.

    Figures can be compared under one judge, one wording and one reference only; judge and wording are in its name.
    Killed anywhere, the same command goes on where it was; several processes share the work, as of `rlaifv respond`.

    Args:
        responses: JSON lines of image_url, question (or prompt) and answer (or text).
        ground_truth: the reference's answers (GPT-4V's, officially) with each question's description and type.
        out: JSON lines to write: a row for each answer and run.
        judge: the model that reviews, as of `rlaifv judge mmhal`; it sees no image.
        name: of the judge, which the figures bear.
        asking: cache, templates, runs and seed.
    """
    how = Runs(
        wording=read_wording(refomb_judge.WORDING, asking.get("template")),
        fewer=read_wording(refomb_judge.FEWER, asking.get("fewer_template")),
        runs=asking.get("runs", 3),
        seed=asking.get("seed", 0),
    )
    who = _judge(name, judge, asking.get("cache"), out)
    _show(review_refomb(Path(ground_truth), Path(responses), who, how, Path(out)), out)


def _judge(name: str, engine: Engine, cache: str | None, out: str) -> Judge:
    return Judge(name=name, engine=engine, cache=Path(cache or f"{out}{PARTS_SUFFIX}/memory"))


def _show(outcome: ReviewOutcome | None, out: str) -> None:
    if outcome is None:
        return
    table = Table("what", "number", title=f"reviews by {outcome.judge}")
    table.add_row("answers", str(outcome.answers))
    table.add_row("without a review", str(outcome.lacking))
    Console().print(table)
    for note in outcome.notes:
        Console().print(f"note: {note}", soft_wrap=True)
    if outcome.answers and outcome.lacking == outcome.answers:
        raise EngineError(
            "The judge gave no review that can be used: look at its server's log, raise its fill_tokens or fill_tries, "
            "set its `structured` as the server has it, or take a better model. The same command asks again."
        )
    Console().print(f"reviews are in {out}", soft_wrap=True)
