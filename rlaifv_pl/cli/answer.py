"""`rlaifv answer`: one question about one's own picture, to a model, a run or several drafts of one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict, Unpack

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlaifv_pl.data.images import storable_image
from rlaifv_pl.export.checkpoint_engine import CheckpointEngine
from rlaifv_pl.feedback.engines.best_of import BestOfN, Rated
from rlaifv_pl.feedback.engines.engine import Engine, EngineError, Sampling
from rlaifv_pl.feedback.engines.transformers_engine import TransformersEngine
from rlaifv_pl.objectives.checks import RunError
from rlaifv_pl.records import Sample


class How(TypedDict, total=False):
    """Options of an answer.

    Args:
        checkpoint: of a run; `last` unless given.
        max_new_tokens: of an answer; 512 unless given.
        aligned: directory or hub name of the model whose reward chooses among `best_of` answers; `model` itself unless
            given.
        temperature: that `best_of` answers are drawn at; 1 unless given.
        seed: of the draws; 0 unless given.
        dtype: of the weights of a model; float32 unless given.
    """

    checkpoint: str
    max_new_tokens: int
    aligned: str
    temperature: float
    seed: int
    dtype: Literal["float32", "bfloat16", "float16"]


def answer(
    model: str,
    question: str,
    image: list[str] | str | None = None,
    best_of: int | None = None,
    reference: str | None = None,
    **how: Unpack[How],
) -> str:
    """Ask a model about a picture. Greedy; or the best of several drawn answers, by what the model was trained to like.

    Args:
        model: directory of a model, or its hub name; or directory of a run, whose last checkpoint answers.
        question: what is asked.
        image: file of a picture, or several.
        best_of: answers to draw; all are shown with their rewards.
        reference: of `best_of`: the model that the aligned one was trained from, directory or hub name.
        how: further options.

    Returns:
        the answer.

    Raises:
        EngineError: the model cannot be asked like this.
        FileNotFoundError: there is no such picture.
        BadSample: it cannot be opened.
    """
    asked = Sample(key="asked", prompt=question, images=_pictures(image))
    tokens, is_run = how.get("max_new_tokens", 512), (Path(model) / "checkpoints").is_dir()
    _check(is_run, best_of, reference, how)
    if best_of is None:
        sampling = Sampling(n=1, temperature=0.0, max_new_tokens=tokens)
        ((said,),) = _open(model, is_run, how).sample([asked], [[0]], sampling)
    else:
        engine = _best_of(model, str(reference), best_of, how)
        (rated,) = engine.rank([asked], tokens)
        Console(stderr=True).print(_table(rated))
        said = rated[0].completion
    print(said.text)
    if not said.ended:
        Console(stderr=True).print(
            f"The answer is cut off at {tokens} tokens: raise --max_new_tokens.", soft_wrap=True
        )
    return said.text


def _check(is_run: bool, best_of: int | None, reference: str | None, how: How) -> None:
    """Check that each option means something."""
    if (best_of is None) != (reference is None):
        raise EngineError(
            "the best of several answers is found with a reference: give both --best_of and --reference"
        )
    if best_of is None and {"temperature", "seed", "aligned"} & set(how):
        raise EngineError(
            "a greedy answer is not drawn: leave --temperature, --seed and --aligned out, or give --best_of"
        )
    if is_run and (best_of is not None or "dtype" in how):
        raise EngineError(
            "a run answers greedily, in its own dtype: ask its model, as `rlaifv export` writes it"
        )
    if not is_run and "checkpoint" in how:
        raise RunError("--checkpoint is of a run, and this is the directory or name of a model: leave it out")


def _open(model: str, is_run: bool, how: How) -> Engine:
    if is_run:
        return CheckpointEngine(run=model, checkpoint=how.get("checkpoint", "last"))
    return TransformersEngine(path=model, dtype=how.get("dtype", "float32"))


def _best_of(model: str, reference: str, n: int, how: How) -> BestOfN:
    dtype, aligned = how.get("dtype", "float32"), how.get("aligned", model)
    engine = None if aligned == model else TransformersEngine(path=model, dtype=dtype)
    try:
        return BestOfN(
            aligned=aligned,
            reference=reference,
            engine=engine,
            n=n,
            temperature=how.get("temperature", 1.0),
            seed=how.get("seed", 0),
            dtype=dtype,
        )
    except ValueError as error:
        raise EngineError(str(error)) from error


def _pictures(image: list[str] | str | None) -> tuple[bytes, ...]:
    paths = [Path(name) for name in ([image] if isinstance(image, str) else image or [])]
    if missing := [path for path in paths if not path.is_file()]:
        raise FileNotFoundError(f"{missing[0]} is no file: expected a picture")
    return tuple(storable_image(path.read_bytes(), str(path)) for path in paths)


def _table(rated: Sequence[Rated]) -> Table:
    table = Table("nats a token", "nats", "tokens", "answer", title="log-p over that of the reference")
    for column in table.columns[:3]:
        column.justify = "right"
    for said, ratio in rated:
        table.add_row(f"{ratio.mean:z.3f}", f"{ratio.total:z.2f}", str(ratio.tokens), Text(said.text))
    return table
