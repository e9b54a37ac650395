"""A model of random weights, which would never end an answer by itself."""

from dataclasses import dataclass

from rlaifv_pl.feedback.engines.engine import Completion
from rlaifv_pl.feedback.engines.transformers_engine import TransformersEngine


@dataclass(kw_only=True)
class Ending(TransformersEngine):
    """Takes each answer for ended."""

    def sample(self, samples, seeds, sampling):
        return [
            [Completion(one.text, True) for one in own] for own in super().sample(samples, seeds, sampling)
        ]
