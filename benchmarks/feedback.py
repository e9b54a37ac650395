"""Feedback's two costs: K questions about an image, and n candidates of a prompt, shared prefix or not.

    python -m benchmarks.run --only feedback

The peer of conquer is RLAIF-V's way, one forward a claim; the peers of generate are n calls of `sample_candidates`, and
one call with `num_return_sequences`. All answers are compared before anything is timed.
"""

import random
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.race import Race, race
from benchmarks.shapes import SHAPES, build, picture, words
from rlaifv_pl.feedback.candidates.sampling import sample_candidates
from rlaifv_pl.feedback.engines.engine import Request, Sampling
from rlaifv_pl.feedback.engines.in_memory import InMemoryEngine
from rlaifv_pl.models.chat import Chat
from rlaifv_pl.models.policy import PolicySpec, load_model, load_processor
from rlaifv_pl.models.vlm import VLM
from rlaifv_pl.records import Sample

PROMPT_TOKENS, QUESTION_TOKENS = 38, (15, 30)
TOLERANCE = 1e-4
NOTE = """The peer of conquer is RLAIF-V's way, one forward a claim; the peer of generate is a call of `generate` for
each candidate."""
Way = Callable[[], Any]


def measure(
    shape: str,
    repeats: int,
    claims: Sequence[int] = (1, 4, 12),
    candidates: Sequence[int] = (10,),
    new_tokens: int = 96,
) -> list[Race]:
    """Time conquer and generate.

    Args:
        shape: of the random model.
        repeats: of each way.
        claims: numbers of questions about one image.
        candidates: numbers of candidates of one prompt.
        new_tokens: of each candidate.
    """
    with tempfile.TemporaryDirectory() as folder:
        spec = PolicySpec(path=str(build(shape, Path(folder) / shape)))
        model, chat = VLM(load_model(spec)).eval(), Chat(load_processor(spec))
    races = []
    for count in claims:
        ways = conquer_ways(model, chat, shape, count)
        races.append(_race(f"Conquer, questions about an image: {count}", ways, repeats))
    for count in candidates:
        ways = generate_ways(model, chat, shape, count, new_tokens)
        races.append(_race(f"Generate, candidates of {new_tokens} tokens: {count}", ways, repeats))
    return races


def conquer_ways(model: VLM, chat: Chat, shape: str, count: int) -> dict[str, Way]:
    """Ways to ask `count` questions about one image; the first is the peer's."""
    image, lengths = picture(np.random.default_rng(0)), random.Random(0)
    vocabulary = SHAPES[shape].vocabulary
    asked = [
        Request(words(lengths.randint(*QUESTION_TOKENS), seed, vocabulary), (image,)) for seed in range(count)
    ]
    ours, batched = _engine(model, chat, count), _engine(model, chat, count, plain=True)
    alone = _engine(model, chat, 1, plain=True)
    return {
        "one forward a claim": lambda: alone.choose(asked, ("yes", "no")),
        "claims in a batch": lambda: batched.choose(asked, ("yes", "no")),
        "shared prefix": lambda: ours.choose(asked, ("yes", "no")),
    }


def generate_ways(model: VLM, chat: Chat, shape: str, count: int, new_tokens: int) -> dict[str, Way]:
    """Ways to draw `count` candidates; the first is n calls of generate."""
    prompt = words(PROMPT_TOKENS, 1, SHAPES[shape].vocabulary)
    samples = [Sample(key="p", prompt=prompt, images=(picture(np.random.default_rng(0)),))]
    sampling = Sampling(n=count, temperature=0.7, max_new_tokens=new_tokens)
    calls = _engine(model, chat, 1, plain=True)
    batched, ours = _engine(model, chat, count, plain=True), _engine(model, chat, count)
    return {
        "n calls": lambda: sample_candidates(calls, samples, sampling, 0),
        "num_return_sequences": lambda: sample_candidates(batched, samples, sampling, 0),
        "shared prefix": lambda: sample_candidates(ours, samples, sampling, 0),
    }


def _engine(model: VLM, chat: Chat, batch_size: int, plain: bool = False) -> InMemoryEngine:
    return InMemoryEngine(model, chat, batch_size, shares_prefix=not plain)


def _race(what: str, ways: dict[str, Way], repeats: int) -> Race:
    checked = agree([way() for way in ways.values()])
    peer = next(iter(ways))
    return race(what, {name: partial(_ignore, way) for name, way in ways.items()}, repeats, peer, checked)


def _ignore(way: Way, _repeat: int) -> None:
    way()


def agree(answers: list[Any]) -> str:
    """In what answers of all ways agree."""
    first, *others = answers
    if not isinstance(first[0][0], float):
        assert all(other == first for other in others), "candidates differ"
        return "the candidates' text"
    off = max((torch.tensor(first) - torch.tensor(other)).abs().max().item() for other in others)
    assert off < TOLERANCE, f"answers differ by {off}"
    return f"answers, to {TOLERANCE:g}"
