"""`rlaifv judge`: saved answers to reviews, by a language model; `rlaifv evaluate` makes figures of the reviews."""

from pathlib import Path
from typing import TypedDict, Unpack

from rich.console import Console
from rich.table import Table

from rlaifv_pl.evaluation.judged import llava_bench as llava
from rlaifv_pl.evaluation.judged import mmhal as mmhal_bench
from rlaifv_pl.evaluation.judged import objhal as object_halbench
from rlaifv_pl.evaluation.judged.llava_bench import llava_bench_job
from rlaifv_pl.evaluation.judged.mmhal import MmhalBenchmark, mmhal_job
from rlaifv_pl.evaluation.judged.objhal import ObjHalBenchmark, objhal_job
from rlaifv_pl.evaluation.judged.refomb import (
    FEWER_TEMPLATE,
    PROMPT_TEMPLATE,
    Runs,
    refomb_job,
    runs_are_alike,
)
from rlaifv_pl.evaluation.judged.reviews import Judge, ReviewJob, ReviewOutcome, read_template, run_reviews
from rlaifv_pl.evaluation.rank_shares import PARTS_SUFFIX
from rlaifv_pl.feedback.engines.engine import Engine, EngineError


class JudgeOptions(TypedDict, total=False):
    """Options of a judge.

    Args:
        cache: file that keeps reviews by what was asked: what was paid for once is not asked again. Unless given,
            one beside the parts of `out`.
        template: file with another prompt, with the same placeholders in braces; its hash is in the
            judge's name.
    """

    cache: str | None
    template: str | None


class RepeatedJudgeOptions(TypedDict, total=False):
    """Options of a judge that is asked about answers, then about its review of them, several times.

    Args:
        cache: file that keeps reviews by what was asked: what was paid for once is not asked again. Unless given,
            one beside the parts of `out`.
        template: file with another first prompt, with {description}, {question}, {reference} and
            {answer}; its hash is in the judge's name.
        fewer_template: file with another second prompt, with {review}.
        runs: times that each answer is reviewed, each with a seed of its own; 3 unless given. A judge that writes
            greedily says the same each time, and then says so: `--judge.fill_temperature 0.7` draws.
        seed: that the runs' seeds come from; 0 unless given.
    """

    cache: str | None
    template: str | None
    fewer_template: str | None
    runs: int
    seed: int


def mmhal(responses: str, out: str, judge: Engine, name: str, **options: Unpack[JudgeOptions]) -> None:
    """Have saved answers to MMHal-Bench reviewed, for `rlaifv evaluate --metric mmhal`.

    Figures can be compared under one judge and one template only; both are in the judge's name. Killed anywhere,
    the same command goes on where it was; several processes share the work, as of `rlaifv respond`.

    Args:
        responses: the authors' template with a `model_answer` in each row.
        out: JSON to write: the same with `review`, `rating` and `judge` in each row.
        judge: the model that reviews, such as `rlaifv_pl.feedback.engines.openai_engine.OpenAIEngine` with
            `--judge.model NAME`; it sees no image.
        name: of the judge, which the figures bear.
        options: cache, and template with {contents}, {question}, {right} and {answer}.
    """
    template = read_template(mmhal_bench.PROMPT_TEMPLATE, options.get("template"))
    job = mmhal_job(MmhalBenchmark.load(Path(responses)), template)
    _run(job, _judge(name, judge, options.get("cache"), out), out)


def objhal(
    responses: str,
    out: str,
    judge: Engine,
    name: str,
    questions: str | None = None,
    **options: Unpack[JudgeOptions],
) -> None:
    """Have the objects that saved answers to Object HalBench name listed, for `rlaifv evaluate --metric objhal`.

    Figures can be compared under one judge and one template only; both are in the judge's name. Killed anywhere,
    the same command goes on where it was; several processes share the work, as of `rlaifv respond`.

    Args:
        responses: JSON lines of image_id, question (or prompt) and answer (or text); an answer of three words or less
            names no objects, and no judge is asked.
        out: JSON lines to write: the same with `objects` and `judge` in each row.
        judge: the model that lists, as of `rlaifv judge mmhal`; it sees no image.
        name: of the judge, which the figures bear.
        questions: JSON lines of image_id and question, one for each answer in its order, if the answers do not say
            what they are about.
        options: cache, and template with {question} and {answer}.
    """
    template = read_template(object_halbench.PROMPT_TEMPLATE, options.get("template"))
    answers = ObjHalBenchmark.of_answers(Path(responses), Path(questions) if questions else None)
    _run(objhal_job(answers, template), _judge(name, judge, options.get("cache"), out), out)


def llava_bench(
    responses: str, ground_truth: str, out: str, judge: Engine, name: str, **options: Unpack[JudgeOptions]
) -> None:
    """Have saved answers to LLaVA-Bench reviewed, in the wild or COCO, for `rlaifv evaluate --metric llava_bench`.

    Figures can be compared under one judge and one template only; both are in the judge's name. Killed anywhere,
    the same command goes on where it was; several processes share the work, as of `rlaifv respond`.

    Args:
        responses: JSON lines of question_id and text.
        ground_truth: directory of the official files: questions, contexts (or captions and boxes) and gpt4's answers.
        out: JSON lines to write, in the form of the authors' reviews.
        judge: the model that reviews, as of `rlaifv judge mmhal`; it sees no image.
        name: of the judge, which the figures bear.
        options: cache, and template with {context}, {question}, {reference} and {answer}.
    """
    template = read_template(llava.PROMPT_TEMPLATE, options.get("template"))
    job = llava_bench_job(Path(ground_truth), Path(responses), template)
    _run(job, _judge(name, judge, options.get("cache"), out), out)


def refomb(
    responses: str,
    ground_truth: str,
    out: str,
    judge: Engine,
    name: str,
    **options: Unpack[RepeatedJudgeOptions],
) -> None:
    """Have saved answers to RefoMB compared with a reference's, for `rlaifv evaluate --metric refomb`.

    Figures can be compared under one judge, one template and one reference only; judge and template are in its name.
    Killed anywhere, the same command goes on where it was; several processes share the work, as of `rlaifv respond`.

    Args:
        responses: JSON lines of image_url, question (or prompt) and answer (or text).
        ground_truth: the reference's answers (GPT-4V's, officially) with each question's description and type.
        out: JSON lines to write: a row for each answer and run.
        judge: the model that reviews, as of `rlaifv judge mmhal`; it sees no image.
        name: of the judge, which the figures bear.
        options: cache, templates, runs and seed.
    """
    settings = Runs(
        template=read_template(PROMPT_TEMPLATE, options.get("template")),
        fewer=read_template(FEWER_TEMPLATE, options.get("fewer_template")),
        runs=options.get("runs", 3),
        seed=options.get("seed", 0),
    )
    job = refomb_job(Path(ground_truth), Path(responses), settings)
    outcome = _run(job, _judge(name, judge, options.get("cache"), out), out)
    if outcome is not None and runs_are_alike(outcome.reviews, settings.runs):
        Console(soft_wrap=True).print(
            "note: all runs are alike, as of a judge that writes greedily: draw its forms (an OpenAIEngine's "
            "fill_temperature above 0), or let --runs be 1"
        )


def _judge(name: str, engine: Engine, cache: str | None, out: str) -> Judge:
    return Judge(name=name, engine=engine, cache=Path(cache or f"{out}{PARTS_SUFFIX}/memory"))


def _run(job: ReviewJob, judge: Judge, out: str) -> ReviewOutcome | None:
    """Review the answers, and print how many have a review."""
    outcome = run_reviews(job, judge, Path(out))
    if outcome is None:
        return None
    answers, missing = len(outcome.reviews), outcome.reviews.count(None)
    table = Table("what", "number", title=f"reviews by {outcome.judge}")
    table.add_row("answers", str(answers))
    table.add_row("without a review", str(missing))
    Console().print(table)
    if answers and missing == answers:
        raise EngineError(
            "The judge gave no review that can be used: look at its server's log, raise its fill_tokens or fill_tries, "
            "set its `structured` as the server has it, or take a better model. The same command asks again."
        )
    Console(soft_wrap=True).print(f"reviews are in {out}")
    return outcome
