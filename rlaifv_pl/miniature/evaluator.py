"""Evaluation between rounds: a model describes the same held-out scenes after each of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rlaifv_pl.data.shards import load_shards
from rlaifv_pl.feedback.candidates.sampling import sample_candidates
from rlaifv_pl.feedback.engines.engine import Engine, Sampling
from rlaifv_pl.miniature.claims import is_true, mentions, scene_of, truth
from rlaifv_pl.miniature.figures import MiniatureFigures, miniature_figures
from rlaifv_pl.records import Answer, Candidate, Sample

GREEDY = Sampling(n=1, temperature=0.0, max_new_tokens=80)
SAMPLED = Sampling(n=1, temperature=1.0, max_new_tokens=80)


def describe(policy: Engine, prompts: Sequence[Sample], sampling: Sampling = GREEDY) -> list[str]:
    """Return one description of each scene."""
    return [candidate.text for (candidate,) in sample_candidates(policy, prompts, sampling, seed=0)]


def measure(policy: Engine, prompts: Sequence[Sample], sampling: Sampling = GREEDY) -> MiniatureFigures:
    """Measure how true the descriptions are."""
    return miniature_figures(describe(policy, prompts, sampling), [scene_of(prompt) for prompt in prompts])


@dataclass(kw_only=True)
class MiniatureEvaluator:
    """Counts what a policy makes up about held-out scenes, and how often a labeler is right.

    Args:
        scenes: shard directory of held-out scenes.
    """

    scenes: str

    def measure(self, policy: Engine) -> tuple[dict[str, float | None], Sequence[Answer]]:
        """Return figures of greedy descriptions, which are the answers, and of sampled ones as `sampled_<name>`."""
        stored = load_shards(self.scenes)
        prompts = [stored[index] for index in range(len(stored))]
        sampled = measure(policy, prompts, SAMPLED).to_json()
        texts = describe(policy, prompts)
        greedy = miniature_figures(texts, [scene_of(prompt) for prompt in prompts]).to_json()
        figures = greedy | {f"sampled_{name}": sampled[name] for name in sampled}
        return figures, [_answer(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]

    def agreement(self, judged: Iterable[tuple[Sample, Sequence[Candidate]]]) -> float | None:
        """Return the share of the verdicts that the scenes bear out, of those on the world's own questions."""
        judged_truths = [
            (truth(scene_of(sample), claim.question), verdict)
            for sample, candidates in judged
            for candidate in candidates
            for claim, verdict in zip(candidate.claims, candidate.verdicts, strict=True)
        ]
        right = [verdict.rejected != true for true, verdict in judged_truths if true is not None]
        return sum(right) / len(right) if right else None


def _answer(prompt: Sample, text: str) -> Answer:
    scene = scene_of(prompt)
    found = ((*one.spans[0], is_true(scene, one.question)) for one in mentions(text))
    return Answer(prompt=prompt, text=text, mentions=tuple(found))
