"""A judge without a model: it fills in forms by a function of what it is asked, and keeps that."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rlaifv_pl.evaluation.judged.reviews import Judge
from rlaifv_pl.feedback.engines.engine import EngineError, Form, Request
from tests.feedback.scripted import Script


class Filler(Script):
    """An engine that fills in forms, and has nothing to say besides.

    Args:
        say: from a request and a form's name to its fields; None for a form that does not hold.
        breaks_at: call, counted from 0, at which the server goes away.
    """

    def __init__(
        self, say: Callable[[Request, str], dict[str, Any] | None], breaks_at: int | None = None
    ) -> None:
        super().__init__("filler", breaks_at)
        self.say = say
        self.asked: list[Request] = []

    def fill(self, requests: Sequence[Request], form: type[Form]) -> list[Form | None]:
        if self.calls == self.breaks_at:
            raise EngineError("the server went away")
        self.calls += 1
        self.asked += requests
        found = [self.say(request, form.__name__) for request in requests]
        return [None if fields is None else form.model_validate(fields) for fields in found]


def judge(engine: Filler, cache: Path | None = None) -> Judge:
    return Judge(name="d", engine=engine, cache=cache)
