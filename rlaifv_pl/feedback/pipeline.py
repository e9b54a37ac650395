"""The verbs in a row: prompts in, preference shards with their evidence out.

Every stage leaves files part by part (see `parts`), keyed by all that decides them. Killed anywhere, the
same run goes on at the first missing part; with another labeler or another rule, what came before it is
taken as it is.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from rlaifv_pl.console import stderr, track
from rlaifv_pl.data.bad_samples import BadSample
from rlaifv_pl.data.manifest import Manifest, hash_json, read_manifest
from rlaifv_pl.data.shards import ShardWriter
from rlaifv_pl.feedback.bad_prompts import show_faults, skip_bad_prompts
from rlaifv_pl.feedback.candidates.candidate_json import decode_candidates, encode_candidates
from rlaifv_pl.feedback.candidates.sampling import VERSION, sample_candidates
from rlaifv_pl.feedback.chunks import UNFINISHED, WAIT_SECONDS, Chunks, Executor, RankShare, wait_for
from rlaifv_pl.feedback.claims.split import split_candidates, usable_part
from rlaifv_pl.feedback.config import FeedbackConfig, PromptSet
from rlaifv_pl.feedback.engines.engine import Engine, EngineError
from rlaifv_pl.feedback.judges.gate import Grade, KnownAnswer
from rlaifv_pl.feedback.judges.labeler import LOW_MASS, judge_claims
from rlaifv_pl.feedback.pairs.left_out import left_out_rows, write_left_out
from rlaifv_pl.feedback.pairs.samples import Judged, Outcome, is_finished, make_pairs, pair_samples, scored
from rlaifv_pl.feedback.preconditions import STAGES, check_feedback, prompt_fault
from rlaifv_pl.feedback.reasons import is_unfinished, remedies
from rlaifv_pl.models.chat import prompt_question
from rlaifv_pl.records import Candidate, Sample

MANY_LOW = 0.1
"""Share of verdicts with low mass that is worth a warning."""

REFUSED = "refused"
"""Key of the row of a prompt that cannot be asked: why."""

Drawn = list[list[Candidate]]
"""Candidates of each of some prompts."""
Stage = Callable[[Sequence[Sample], Drawn], Sequence[list[Candidate] | BadSample]]


@dataclass(kw_only=True)
class FeedbackPipeline:
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

    feedback: FeedbackConfig
    policy: Engine
    prompts: PromptSet
    out: Path
    seed: int
    round: int | None = None
    makers: Executor = field(default_factory=RankShare)
    clock: Callable[[str, float], None] = lambda _stage, _seconds: None

    def make(self) -> Manifest:
        """The manifest of the finished shards; what is made already is not made again.

        Raises:
            EngineError: the settings cannot make pairs, the labeler does not pass the gate, a model cannot be asked, or
                gives nothing that can be used.
            BadSample: two prompts have one key, or a key leaves no room for the number of a pair.
            FileExistsError: `out` holds something else.
            TimeoutError: another process does not make its share.
        """
        check_feedback(self.feedback, self.prompts, self.out)
        self._pass_gate()
        for number, (parts, stage) in enumerate(self._stages):
            before = self._stages[number - 1][0] if number else None
            self._timed(parts.stage, partial(self._go_through, parts, before, stage))
            self.policy.release()
            self.feedback.splitter.release()
        self.feedback.labeler.release()
        recipe = self.recipe()
        if not is_finished(self.out, recipe) or (self.makers.leads and self._has_changed()):
            for parts, _ in self._stages:  # The last stage's come only after the earlier ones'.
                parts.wait(WAIT_SECONDS)
            if self.makers.leads:
                self._timed("pair", partial(self._write, recipe))
            wait_for(lambda: is_finished(self.out, recipe), f"the manifest in {self.out}")
        return read_manifest(self.out)

    def candidates(self) -> Iterator[Judged]:
        """The scored candidates of each prompt, once all are made."""
        for row in self._judged.rows():
            candidates = decode_candidates(row["candidates"])
            scores = [scored(candidate, self.feedback.combine) for candidate in candidates]
            yield Judged(row["key"], scores, row.get(REFUSED))

    def _has_changed(self) -> bool:
        """Whether what could not be used when the shards were written has been answered since."""
        unfinished = sum(bool(row.get(UNFINISHED)) for row in self._judged.rows())
        return read_manifest(self.out).notes.get("unfinished", 0) != unfinished

    @cached_property
    def _stages(self) -> list[tuple[Chunks, Stage]]:
        """Generate, divide, conquer: each stage's files are keyed by its settings and by the stage before."""
        settings = self.settings(self.policy.identity)
        named: dict[str, Stage] = {
            "generate": self._generate,
            "divide": self._divide,
            "conquer": self._conquer,
        }
        count, size = len(self.prompts.numbers), self.feedback.prompts_per_part
        stages: list[tuple[Chunks, Stage]] = []
        for name, stage in named.items():
            recipe = {"settings": settings[name], "before": stages[-1][0].hash if stages else None}
            stages.append((Chunks(self.out / STAGES, name, recipe, count, size), stage))
        return stages

    @property
    def _judged(self) -> Chunks:
        return self._stages[-1][0]

    def settings(self, policy: str = "") -> dict[str, Any]:
        """By stage, all that decides its outcome; the policy counts by its identity, if given."""
        how = self.feedback
        first = {"policy": policy, "prompts": self.prompts.recipe(), "seed": self.seed}
        return {
            "generate": first | asdict(how.sampling) | {"version": VERSION},
            "divide": how.splitter.recipe() | {"truncated": how.truncated},
            "conquer": how.labeler.recipe(policy),
            "pair": how.pair_recipe(),
        }

    def recipe(self) -> dict[str, Any]:
        """All that decides the shards, the policy included."""
        return {"policy": self.policy.identity, "settings": self.settings(), "judged": self._judged.hash}

    def _go_through(self, parts: Chunks, before: Chunks | None, stage: Stage) -> None:
        numbers = self.makers.numbers(parts)
        is_shown = self.makers.leads and not all(map(parts.is_finished, numbers))
        title = parts.stage if self.round is None else f"round {self.round}: {parts.stage}"
        steps = self.makers.make(parts, partial(self._rows, before, stage))
        for _ in track(steps, title, len(numbers), is_shown=is_shown):
            pass

    def _rows(self, before: Chunks | None, stage: Stage, some: Sequence[int]) -> Iterator[dict[str, Any]]:
        """What a stage makes of some prompts of one part."""
        found = self._found(before, some)
        usable = [place for place in some if REFUSED not in found[place]]
        read = [decode_candidates(found[place]["candidates"]) for place in usable]
        samples = [self._prompt(place) for place in usable]
        made = dict(zip(usable, stage(samples, read), strict=True)) if usable else {}
        for place in some:
            yield found[place] | (_row(made[place], found[place]) if place in made else {})

    def _found(self, before: Chunks | None, some: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Rows of the stage before; of the first stage, of prompts without candidates."""
        if before is not None:
            part = some[0] // self.feedback.prompts_per_part
            rows = dict(zip(before.slices[part], before.read(part), strict=True))
            return {place: rows[place] for place in some}
        rows = {}
        for place in some:
            rows[place] = {"key": self._keys[place], "candidates": []}
            if (fault := prompt_fault(self.prompts, place)) is not None:
                stderr.print(f"left out: {fault}", markup=False, highlight=False)
                rows[place][REFUSED] = str(fault.reason)
        return rows

    def _generate(self, samples: Sequence[Sample], _: Drawn) -> list[list[Candidate] | BadSample]:
        def sample(numbers: Sequence[int]) -> Drawn:
            prompts = [samples[number] for number in numbers]
            return sample_candidates(self.policy, prompts, self.feedback.sampling, self.seed)

        candidates = skip_bad_prompts(samples, sample)
        show_faults(candidates)
        return candidates

    def _divide(self, samples: Sequence[Sample], candidates: Drawn) -> Drawn:
        keep = self.feedback.truncated == "keep"
        usable = [[usable_part(candidate, keep=keep) for candidate in drawn] for drawn in candidates]
        return split_candidates(self.feedback.splitter, list(map(prompt_question, samples)), usable)

    def _conquer(self, samples: Sequence[Sample], candidates: Drawn) -> list[list[Candidate] | BadSample]:
        def judge(numbers: Sequence[int]) -> Drawn:
            prompts, drawn = [samples[n] for n in numbers], [candidates[n] for n in numbers]
            return judge_claims(prompts, drawn, self.feedback.labeler, self.policy)

        judged = skip_bad_prompts(samples, judge)
        show_faults(judged)
        return judged

    def _write(self, recipe: Mapping[str, Any]) -> None:
        outcome = make_pairs(self.candidates(), self.feedback, self.seed)
        self._check_refused(outcome)
        self._check_unfinished(outcome)
        if outcome.notes["low_mass"] > MANY_LOW:
            stderr.print(
                f"warning: {outcome.notes['low_mass']:.0%} of the verdicts have P(yes) + P(no) below {LOW_MASS}: the "
                "labeler wanted to say something else. Check the wording of its question."
            )
        provenance = {"round": self.round, "feedback": hash_json(recipe), "seed": self.seed}
        with ShardWriter(
            self.out,
            recipe=recipe,
            round=self.round,
            parents=self.prompts.parents(),
            link_duplicate_images=self.feedback.link_duplicate_images,
            overwrite=True,
        ) as writer:
            for sample in pair_samples(outcome.pairs, self._prompt, provenance):
                writer.write(sample)
            for reason, count in sorted(outcome.drops.items()):
                writer.drop(reason, count)
            for name, value in outcome.notes.items():
                writer.note(name, value)
            write_left_out(self.out, left_out_rows(outcome.examples, self.prompts))

    def _check_refused(self, outcome: Outcome) -> None:
        refused = {
            name.partition("/")[2]: count
            for name, count in outcome.drops.items()
            if name.startswith("prompt/") and name != "prompt/no_pair"
        }
        if refused and sum(refused.values()) == len(self.prompts.numbers):
            counts = ", ".join(f"{reason} {count}" for reason, count in refused.items())
            raise EngineError(f"none of the {len(self.prompts.numbers)} prompts can be asked: {counts}")

    def _check_unfinished(self, outcome: Outcome) -> None:
        """Tell what a model's answers were no good for; where nothing else is there, have all of it asked again."""
        if not (unfinished := outcome.notes.get("unfinished")):
            return
        told = f"{unfinished} of {outcome.notes['prompts']} prompts ({_counts(outcome.drops)})"
        if outcome.pairs:
            stderr.print(
                f"warning: models' answers could not be used about {told}. The same command asks about them again. "
                f"{remedies(outcome.drops)}",
                soft_wrap=True,
            )
            return
        for parts, _ in self._stages:
            for number in range(len(parts.slices)):
                if not any(row.get(UNFINISHED) is None for row in parts.read(number)):
                    parts.drop(number)
        raise EngineError(
            f"No pair was made: models' answers could not be used about {told}. {remedies(outcome.drops)} The same "
            "command then asks again what was not answered."
        )

    @cached_property
    def _keys(self) -> list[str]:
        return self.prompts.keys()

    def _prompt(self, place: int) -> Sample:
        (sample,) = self.prompts.read(range(place, place + 1))
        return sample

    def _pass_gate(self) -> None:
        gate, labeler = self.feedback.gate, self.feedback.labeler
        if gate is None:
            return
        recipe = gate.recipe() | labeler.recipe(self.policy.identity)
        asked = Chunks(self.out / STAGES, "gate", recipe, 1, 1)
        if not asked.is_finished(0):
            before = asked.stamp(0)
            list(self.makers.make(asked, partial(self._grade, gate.known())))
            labeler.release()
            # One that was left by an earlier start is asked anew, by the first process.
            wait_for(
                lambda: asked.is_finished(0) or asked.stamp(0) != before, f"the gate in {asked.directory}"
            )
        row = asked.read(0)[0]
        gate.check(Grade(row["accuracy"], row["unanswered"]))

    def _grade(self, known: Sequence[KnownAnswer], _: Sequence[int]) -> list[dict[str, Any]]:
        gate = self.feedback.gate
        grade = gate.grade(known, self.feedback.labeler, self.policy)
        is_garbage = grade.unanswered and grade.accuracy < gate.min_accuracy
        return [grade._asdict() | ({UNFINISHED: True} if is_garbage else {})]

    def _timed(self, stage: str, work: Callable[[], Any]) -> None:
        started = time.monotonic()
        work()
        self.clock(stage, time.monotonic() - started)


def _row(made: list[Candidate] | BadSample, before: Mapping[str, Any]) -> dict[str, Any]:
    """What a stage adds to a prompt's row of the stage before."""
    if isinstance(made, BadSample):
        return {"candidates": [], REFUSED: str(made.reason)}
    unfinished = before.get(UNFINISHED) or is_unfinished(made)
    return {"candidates": encode_candidates(made)} | ({UNFINISHED: True} if unfinished else {})


def _counts(drops: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(drops.items()))
