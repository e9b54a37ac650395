"""An engine whose model comes into memory when it is first asked, and goes when it is released."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

from rlaifv_pl.feedback.engines.engine import Completion, Form, Request, Sampling
from rlaifv_pl.feedback.engines.in_memory import InMemoryEngine
from rlaifv_pl.records import Sample


class LazyEngine(ABC):
    """What all such engines share: the model in memory answers. Subclasses say what it is, by `load` and `identity`."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """As `Engine.identity`."""

    @abstractmethod
    def load(self) -> InMemoryEngine:
        """The model, brought into memory."""

    @cached_property
    def live(self) -> InMemoryEngine:
        """The model in memory; it is loaded if it is not there."""
        return self.load()

    def sample(
        self, samples: Sequence[Sample], seeds: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Completion]]:
        """As `Engine.sample`."""
        return self.live.sample(samples, seeds, sampling)

    def choose(self, requests: Sequence[Request], words: Sequence[str]) -> list[list[float]]:
        """As `Engine.choose`."""
        return self.live.choose(requests, words)

    def fill(self, requests: Sequence[Request], form: type[Form]) -> list[Form | None]:
        """As `Engine.fill`."""
        return self.live.fill(requests, form)

    def release(self) -> None:
        """Drop the weights; they are loaded again when needed."""
        self.__dict__.pop("live", None)
