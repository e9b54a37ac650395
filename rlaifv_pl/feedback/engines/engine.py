"""What feedback asks of a model, whoever runs it: sample, choose between words, fill in a form.

The stages know this protocol only. `engines/` has a model in this process and a model behind an
OpenAI-compatible server; in tests a dictionary may stand in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel

from rlaifv_pl.errors import UserError
from rlaifv_pl.records import Sample

Form = TypeVar("Form", bound=BaseModel)


class EngineError(UserError, RuntimeError):
    """A model cannot be asked, or not like this; the message says what to change. What it answered so
    far is kept."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How candidates are drawn; the defaults are RLAIF-V's.

    Args:
        n: candidates of a prompt.
        temperature: of the softmax; 0 for the one greedy answer.
        max_new_tokens: of a candidate.
    """

    n: int = 10
    temperature: float = 0.7
    max_new_tokens: int = 512

    def __post_init__(self) -> None:
        if self.n < 1 or self.temperature < 0 or (self.temperature == 0 and self.n > 1):
            raise ValueError(
                f"sampling: n = {self.n} at temperature {self.temperature} makes no sense. Give n >= 1 and a positive "
                "temperature, or temperature 0 with n = 1: the greedy answer is always the same."
            )


class Completion(NamedTuple):
    """What a model says to a prompt."""

    text: str
    ended: bool
    """Whether the model ended it; false where a limit of tokens, or a filter, cut it off."""


@dataclass(frozen=True, slots=True)
class Request:
    """One user's turn put to a model by itself."""

    text: str
    images: tuple[bytes, ...] = ()
    """Encoded files, shown in front of the text."""
    where: str = ""
    """What it is about, named in errors."""
    seed: int = 0
    """Of a form that is drawn; greedy ones are alike for all seeds."""
    accepts: Callable[[Any], bool] = field(default=lambda form: True, compare=False)
    """Whether a form that was filled in can be used; another draft is drawn of one that cannot."""


class Engine(Protocol):
    """A model that can be asked. Answers do not depend on what else is asked in the same call."""

    @property
    def identity(self) -> str:
        """Hash or name of all that decides its answers: weights, chat template, processor, settings."""

    def sample(
        self, samples: Sequence[Sample], seeds: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Completion]]:
        """A completion of each sample's prompt for each of its seeds.

        Raises:
            BadSample: the model cannot be asked the prompt of `sample <key>`; nothing has been sampled.
        """

    def choose(self, requests: Sequence[Request], words: Sequence[str]) -> list[list[float]]:
        """For each request, the probability that the answer begins with each word, however it is written
        (`yes`: also Yes, YES, with a space in front); they need not add up to one."""

    def fill(self, requests: Sequence[Request], form: type[Form]) -> list[Form | None]:
        """A filled-in form for each request; None where the model gave none that holds, also when asked again. Of
        forms that hold and that the request does not accept, the last."""

    def release(self) -> None:
        """Free what it holds in memory; it comes back by itself when it is asked again."""
