"""Functions for notebooks and scripts; `import rlaifv_pl` exports them.

Each is a short way to what the command line does. Whatever needs more options is a class of the package, used here.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Trainer

from rlaifv_pl.cli.fit import main
from rlaifv_pl.evaluation.chair.benchmark import chair_figures, chair_row
from rlaifv_pl.evaluation.chair.forms import Variant
from rlaifv_pl.feedback.claims.splitter import PromptedAnswer, RuleSplitter, Splitter, Undivided
from rlaifv_pl.feedback.engines.engine import Completion, Engine
from rlaifv_pl.feedback.engines.implicit_reward import answers_batch
from rlaifv_pl.feedback.engines.lazy import LazyEngine
from rlaifv_pl.feedback.judges.labeler import Labeler, ModelLabeler
from rlaifv_pl.records import Claim, Sample, Verdict

DESCRIBE = "Describe the image."


class AnswerLogp(NamedTuple):
    """Log-probability of one answer, its end token included."""

    logp: float
    """Sum over the answer's tokens, in nats."""
    tokens: int

    @property
    def mean(self) -> float:
        """Nats a token."""
        return self.logp / self.tokens


def fit(*configs: str | Path, options: Mapping[str, Any] | None = None) -> Trainer:
    """Train as `rlaifv fit --config A --config B --option value` does, in this process.

    Args:
        configs: YAML files, or packaged configs by name (`"dpo"`), stacked in this order.
        options: values by dotted name, such as `{"data.train": "shards/mine"}`; they override the configs.

    Returns:
        The trainer after the run: `trainer.callback_metrics`, `trainer.lightning_module`, `trainer.default_root_dir`.

    Raises:
        SystemExit: an option is wrong; the reason is printed, as on the command line.
    """
    words = [f"--config={config}" for config in configs]
    words += [f"--{name}={_option(value)}" for name, value in (options or {}).items()]
    return main(["fit", *words]).trainer


def score_answers(
    engine: LazyEngine, question: str, answers: Sequence[str], images: Sequence[bytes] = ()
) -> list[AnswerLogp]:
    """Compute the log-probability of each answer to one question, in one pass that reads the images once.

    Args:
        engine: a model in this process, such as `TransformersEngine(path=...)`.
        question: text of the user's turn.
        answers: at least one.
        images: encoded files (JPEG, PNG, WebP), shown before the question.

    Raises:
        BadSample: an image or a text cannot be used, with the reason.
    """
    model, chat = engine.live.model, engine.live.chat
    sample = Sample(key="question", prompt=question, images=tuple(images))
    batch = answers_batch(chat, [sample], [[Completion(text, ended=True) for text in answers]])
    device = next(model.parameters()).device
    with torch.inference_mode():
        logps = model(move_data_to_device(batch, device)).cpu()
    sums, counts = (
        batch.sum_by_sequence(logps),
        batch.sum_by_sequence(torch.ones_like(logps, dtype=torch.long)),
    )
    return [AnswerLogp(*pair) for pair in zip(sums.tolist(), counts.tolist(), strict=True)]


def split(text: str, question: str = DESCRIBE, splitter: Splitter | None = None) -> list[Claim]:
    """Split an answer about an image into claims, each with a yes/no question; by rule unless a splitter is given.

    Raises:
        ValueError: the splitter could not split the answer, with its reason.
    """
    (claims,) = (splitter or RuleSplitter()).split([PromptedAnswer(question, text)])
    if isinstance(claims, Undivided):
        raise ValueError(f"the answer could not be split: {claims.reason}")
    return claims


def judge(
    claims: Sequence[Claim], images: Sequence[bytes], engine: Engine, labeler: Labeler | None = None
) -> list[Verdict]:
    """Judge claims about one sample's images: one verdict a claim, P(yes) and P(no) of its question.

    Args:
        claims: from `split`.
        images: encoded files.
        engine: the labeler's model.
        labeler: how it is asked; a `ModelLabeler` with its default question unless given.
    """
    sample = Sample(key="claims", prompt=DESCRIBE, images=tuple(images))
    labeler = labeler or ModelLabeler(engine=engine)
    return labeler.verdicts([sample] * len(claims), [claim.question for claim in claims], engine)


def chair(
    captions: Sequence[str], objects: Sequence[Collection[str]], variant: Variant = "A"
) -> dict[str, float]:
    """Compute CHAIR of captions (Rohrbach et al. 2018): CHAIRs, CHAIRi and Recall in per cent.

    Args:
        captions: one an image.
        objects: COCO classes in each image, in the same order.
        variant: how words are brought into the singular, see `rlaifv_pl.evaluation.chair.forms`.

    Raises:
        ValueError: the two lists differ in length.
    """
    rows = [chair_row(caption, there, variant) for caption, there in zip(captions, objects, strict=True)]
    return chair_figures(torch.tensor(rows, dtype=torch.long).reshape(-1, 5))


def _option(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
