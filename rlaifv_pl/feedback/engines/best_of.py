"""Best of N: several drawn answers instead of a greedy one, and the one that an aligned model likes best."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from rlaifv_pl.data.manifest import hash_json
from rlaifv_pl.feedback.candidates.sampling import sample_candidates
from rlaifv_pl.feedback.engines.engine import Completion, Engine, EngineError, Form, Request, Sampling
from rlaifv_pl.feedback.engines.implicit_reward import ImplicitReward, LogRatio
from rlaifv_pl.feedback.engines.transformers_engine import TransformersEngine
from rlaifv_pl.records import Sample


class Rated(NamedTuple):
    """A candidate and what it is chosen by."""

    completion: Completion
    ratio: LogRatio

    @property
    def text(self) -> str:
        """What it says."""
        return self.completion.text


@dataclass(kw_only=True)
class BestOfN:
    """Draws `n` answers where one greedy answer is asked for, and gives the one of the highest reward.

    The reward of an answer is the mean over its tokens of log-p under the aligned model minus log-p under the
    reference: RLAIF-V's, with which an aligned model chooses among another one's answers, such as those of its own
    reference. Its own answers it has made likely already: to choose among many of them rewards what is odd.

    Args:
        aligned: directory or hub name of a model that preference training has made, such as `rlaifv export` writes.
        reference: of the model that it was trained from.
        engine: who draws the answers; the aligned model itself unless given.
        n: answers drawn for a prompt.
        temperature: that they are drawn at.
        seed: of the draws.
        normalise: take the mean over an answer's tokens; the sum, otherwise, which prefers short answers.
        dtype: of the weights of both models.
        device: as of `TransformersEngine`.
        batch_size: answers at a time.

    Raises:
        ValueError: a setting that makes no sense.
    """

    aligned: str
    reference: str
    engine: Engine | None = None
    n: int = 16
    temperature: float = 1.0
    seed: int = 0
    normalise: bool = True
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str | None = None
    batch_size: int = 16

    def __post_init__(self) -> None:
        if self.n < 1 or self.temperature <= 0 or self.batch_size < 1:
            raise ValueError(
                f"best of {self.n} at temperature {self.temperature}, {self.batch_size} at a time, makes no sense. "
                "Give n >= 1, a positive temperature and batch_size >= 1."
            )
        self._models = [
            TransformersEngine(path=path, dtype=self.dtype, device=self.device, batch_size=self.batch_size)
            for path in (self.aligned, self.reference)
        ]

    @property
    def identity(self) -> str:
        """Hash of the three models and the settings."""
        models = [model.identity for model in (self._drawer, *self._models)]
        return hash_json([*models, self.n, self.temperature, self.seed, self.normalise])

    def sample(
        self, samples: Sequence[Sample], seeds: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Completion]]:
        """As `Engine.sample`, of greedy requests alone; the seeds asked for do not count.

        Raises:
            EngineError: it is asked to draw.
        """
        if sampling.temperature > 0:
            raise EngineError(
                "the best of several answers is one answer, as a greedy one: ask for n = 1 at temperature 0, or ask "
                "the model that draws."
            )
        return [[ranked[0].completion] for ranked in self.rank(samples, sampling.max_new_tokens)]

    def rank(self, samples: Sequence[Sample], max_new_tokens: int) -> list[list[Rated]]:
        """The distinct answers drawn for each sample, the best first; of equals, what was drawn first."""
        how = Sampling(n=self.n, temperature=self.temperature, max_new_tokens=max_new_tokens)
        drawn = sample_candidates(self._drawer, samples, how, self.seed)
        answers = [list(dict.fromkeys(Completion(one.text, one.ended) for one in group)) for group in drawn]
        ratios = self._reward.of(samples, answers)
        rated = [list(map(Rated, *pair)) for pair in zip(answers, ratios, strict=True)]
        return [sorted(group, key=self.reward, reverse=True) for group in rated]

    def reward(self, rated: Rated) -> float:
        """What a candidate is chosen by, in nats: a token, or the whole answer."""
        return rated.ratio.mean if self.normalise else rated.ratio.total

    def choose(self, requests: Sequence[Request], words: Sequence[str]) -> list[list[float]]:
        """As `Engine.choose`, of the model that draws."""
        return self._drawer.choose(requests, words)

    def fill(self, requests: Sequence[Request], form: type[Form]) -> list[Form | None]:
        """As `Engine.fill`, of the model that draws."""
        return self._drawer.fill(requests, form)

    def release(self) -> None:
        """Drop the weights of all models; they are loaded again when needed."""
        self.__dict__.pop("_reward", None)
        for model in (self._drawer, *self._models):
            model.release()

    @property
    def _drawer(self) -> Engine:
        return self.engine or self._models[0]

    @cached_property
    def _reward(self) -> ImplicitReward:
        (aligned, reference) = (model.live for model in self._models)
        return ImplicitReward(aligned.model, aligned.chat, reference.model, reference.chat, self.batch_size)
