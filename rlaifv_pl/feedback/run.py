"""The verbs in a row: prompts in, preference shards with their evidence out.

Every stage leaves files part by part (see `parts`), keyed by all that decides them. Killed anywhere, the
same run goes on at the first missing part; with another labeler or another rule, what came before it is
taken as it is.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from rlaifv_pl.console import stderr, track
from rlaifv_pl.data.faults import BadSample
from rlaifv_pl.data.manifest import Manifest, hash_json, read_manifest
from rlaifv_pl.data.shards import ShardWriter
from rlaifv_pl.feedback.conquer import LOW_MASS, conquer
from rlaifv_pl.feedback.divide import Answered
from rlaifv_pl.feedback.engine import Engine, EngineError
from rlaifv_pl.feedback.finish import find_pairs, is_made, samples, scored
from rlaifv_pl.feedback.gate import Known
from rlaifv_pl.feedback.generate import generate, of_each
from rlaifv_pl.feedback.left_out import left_out_rows, write_left_out
from rlaifv_pl.feedback.parts import PATIENCE_SECONDS, Makers, Parts, Share, wait_for
from rlaifv_pl.feedback.rows import decode_candidates, encode_candidates
from rlaifv_pl.feedback.settings import Feedback, Prompts
from rlaifv_pl.models.chat import question_of
from rlaifv_pl.models.markup import markup_in
from rlaifv_pl.records import Candidate, Sample

MANY_LOW = 0.1
"""Share of verdicts with low mass that is worth a warning."""

REFUSED = "refused"
"""Of a row of candidates: why the prompt could not be asked."""
SHOWN_FAULTS = 3
"""Prompts of a part that are named as they are left out; examples are beside the shards."""

Judged = list[list[Candidate]]
Drawn = Sequence[list[Candidate] | BadSample]
Stage = Callable[[Sequence[Sample], Judged], Drawn]


@dataclass(kw_only=True)
class FeedbackRun:
    """One pass of feedback over prompts, into one directory.

    Args:
        feedback: how.
        policy: answers the prompts.
        prompts: to answer.
        out: directory of the preference shards; `stages` in it holds the parts.
        seed: decides all draws, together with the samples' keys.
        round: that the shards belong to.
        makers: of the parts: this process by itself, its share of several, or others that it sends for.
        clock: told the seconds of each stage when it is done.
    """

    feedback: Feedback
    policy: Engine
    prompts: Prompts
    out: Path
    seed: int
    round: int | None = None
    makers: Makers = field(default_factory=Share)
    clock: Callable[[str, float], None] = lambda _stage, _seconds: None

    def make(self) -> Manifest:
        """The manifest of the finished shards; what is made already is not made again.

        Raises:
            EngineError: the labeler does not pass the gate, or a model cannot be asked.
            TimeoutError: another process does not make its share.
        """
        self._pass_gate()
        for number, (parts, stage) in enumerate(self._stages):
            before = self._stages[number - 1][0] if number else None
            self._timed(parts.stage, partial(self._go_through, parts, before, stage))
            self.policy.release()
            self.feedback.divide.release()
        self.feedback.conquer.release()
        recipe = self.recipe()
        if not is_made(self.out, recipe):
            for parts, _ in self._stages:  # The last stage's come only after the earlier ones'.
                parts.wait(PATIENCE_SECONDS)
            if self.makers.leads:
                self._timed("pair", partial(self._write, recipe))
            wait_for(lambda: is_made(self.out, recipe), f"the manifest in {self.out}")
        return read_manifest(self.out)

    def candidates(self) -> Iterator[tuple[str, list[Candidate]]]:
        """Key of each prompt with its scored candidates, once all are made."""
        for row in self._judged.rows():
            candidates = decode_candidates(row["candidates"])
            yield row["key"], [scored(candidate, self.feedback.combine) for candidate in candidates]

    @cached_property
    def _stages(self) -> list[tuple[Parts, Stage]]:
        """Generate, divide, conquer: each stage's files are keyed by its settings and by the stage before."""
        settings = self.settings(self.policy.identity)
        named = {"generate": self._generate, "divide": self._divide, "conquer": self._conquer}
        count, size = len(self.prompts.numbers), self.feedback.prompts_per_part
        stages: list[tuple[Parts, Stage]] = []
        for name, stage in named.items():
            recipe = {"settings": settings[name], "before": stages[-1][0].hash if stages else None}
            stages.append((Parts(self.out / "stages", name, recipe, count, size), stage))
        return stages

    @property
    def _judged(self) -> Parts:
        return self._stages[-1][0]

    def settings(self, policy: str = "") -> dict[str, Any]:
        """By stage, all that decides its outcome; the policy counts by its identity, if given."""
        how = self.feedback
        first = {"policy": policy, "prompts": self.prompts.recipe(), "seed": self.seed}
        return {
            "generate": first | asdict(how.generate),
            "divide": how.divide.recipe(),
            "conquer": how.conquer.recipe(policy),
            "pair": how.pairing(),
        }

    def recipe(self) -> dict[str, Any]:
        """All that decides the shards, the policy included."""
        return {"policy": self.policy.identity, "settings": self.settings(), "judged": self._judged.hash}

    def _go_through(self, parts: Parts, before: Parts | None, stage: Stage) -> None:
        numbers = self.makers.numbers(parts)
        is_shown = self.makers.leads and not all(map(parts.is_made, numbers))
        title = parts.stage if self.round is None else f"round {self.round}: {parts.stage}"
        steps = self.makers.make(parts, partial(self._rows, before, stage))
        for _ in track(steps, title, len(numbers), is_shown=is_shown):
            pass

    def _rows(self, before: Parts | None, stage: Stage, some: range) -> Iterator[dict[str, Any]]:
        """What a stage makes of some prompts."""
        samples = self.prompts.read(some)
        found = before.read(some.start // self.feedback.prompts_per_part) if before else []
        drawn = stage(samples, [decode_candidates(row["candidates"]) for row in found])
        for sample, candidates in zip(samples, drawn, strict=True):
            if isinstance(candidates, BadSample):
                yield {"key": sample.key, "candidates": [], REFUSED: candidates.reason}
            else:
                yield {"key": sample.key, "candidates": encode_candidates(candidates)}

    def _generate(self, samples: Sequence[Sample], _: Judged) -> Drawn:
        drawn = of_each(samples, lambda good: generate(self.policy, good, self.feedback.generate, self.seed))
        faults = [one for one in drawn if isinstance(one, BadSample)]
        for fault in faults[:SHOWN_FAULTS]:
            more = f" ({len(faults)} such prompts among {len(samples)})" if len(faults) > SHOWN_FAULTS else ""
            stderr.print(f"left out: {fault}{more}", markup=False, highlight=False)
        return drawn

    def _divide(self, samples: Sequence[Sample], candidates: Judged) -> Judged:
        asked = [question_of(sample) for sample in samples]
        answered = [
            Answered(prompt, candidate.text)
            for prompt, drawn in zip(asked, candidates, strict=True)
            for candidate in drawn
            if not markup_in(candidate.text)
        ]
        claims = iter(self.feedback.divide.split(answered))
        return [
            [one if markup_in(one.text) else replace(one, claims=tuple(next(claims) or ())) for one in drawn]
            for drawn in candidates
        ]

    def _conquer(self, samples: Sequence[Sample], candidates: Judged) -> Judged:
        return conquer(samples, candidates, self.feedback.conquer, self.policy)

    def _write(self, recipe: Mapping[str, Any]) -> None:
        outcome = find_pairs(self.candidates(), self.feedback, self.seed, self._refused())
        if outcome.notes["low_mass"] > MANY_LOW:
            stderr.print(
                f"warning: {outcome.notes['low_mass']:.0%} of the verdicts have P(yes) + P(no) below {LOW_MASS}: the "
                "labeler wanted to say something else. Check the wording of its question."
            )
        provenance = {"round": self.round, "feedback": hash_json(recipe), "seed": self.seed}
        with ShardWriter(
            self.out, recipe=recipe, round=self.round, parents=self.prompts.parents(), overwrite=True
        ) as writer:
            for sample in samples(outcome.pairs, self._prompt, provenance):
                writer.write(sample)
            for reason, count in sorted(outcome.drops.items()):
                writer.drop(reason, count)
            for name, value in outcome.notes.items():
                writer.note(name, value)
            write_left_out(self.out, left_out_rows(outcome.examples, self.prompts))

    def _refused(self) -> dict[int, str]:
        """Reasons of the prompts that the policy could not be asked, by place.

        Raises:
            EngineError: it could be asked none.
        """
        rows = self._stages[0][0].rows()
        refused = {place: row[REFUSED] for place, row in enumerate(rows) if REFUSED in row}
        if refused and len(refused) == len(self.prompts.numbers):
            counts = ", ".join(f"{reason} {count}" for reason, count in Counter(refused.values()).items())
            raise EngineError(f"none of the {len(refused)} prompts can be asked: {counts}")
        return refused

    def _prompt(self, place: int) -> Sample:
        (sample,) = self.prompts.read(range(place, place + 1))
        return sample

    def _pass_gate(self) -> None:
        gate, labeler = self.feedback.gate, self.feedback.conquer
        if gate is None:
            return
        recipe = gate.recipe() | labeler.recipe(self.policy.identity)
        asked = Parts(self.out / "stages", "gate", recipe, 1, 1)
        if not asked.is_made(0):
            list(self.makers.make(asked, partial(self._accuracy, gate.known())))
            labeler.release()
            asked.wait(PATIENCE_SECONDS)
        gate.check(asked.read(0)[0]["accuracy"])

    def _accuracy(self, known: Sequence[Known], _: range) -> list[dict[str, float]]:
        return [{"accuracy": self.feedback.gate.accuracy(known, self.feedback.conquer, self.policy)}]

    def _timed(self, stage: str, work: Callable[[], Any]) -> None:
        started = time.monotonic()
        work()
        self.clock(stage, time.monotonic() - started)
