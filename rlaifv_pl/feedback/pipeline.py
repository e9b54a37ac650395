"""The stages of feedback in a row: prompts in, preference shards with their evidence out.

Every stage writes its files chunk by chunk (see `chunks`), keyed by everything that decides them. Killed anywhere, the
same run continues at the first missing chunk; with another labeler or pair rule, the earlier stages are reused.
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
from rlaifv_pl.feedback.judges.labeler import LOW_MASS, judge_claims
from rlaifv_pl.feedback.pairs.left_out import left_out_rows, write_left_out
from rlaifv_pl.feedback.pairs.samples import Judged, Outcome, is_finished, make_pairs, pair_samples, scored
from rlaifv_pl.feedback.preconditions import STAGES, check_feedback, prompt_fault
from rlaifv_pl.feedback.reasons import is_unfinished, remedies
from rlaifv_pl.models.chat import prompt_question
from rlaifv_pl.records import Candidate, Sample

MANY_LOW = 0.1
"""Share of verdicts with low mass above which a warning is printed."""

REFUSED = "refused"
"""Key in the row of a prompt that a model cannot be asked; its value is the reason."""

CandidateLists = list[list[Candidate]]
"""Candidates of each of some prompts."""
Stage = Callable[[Sequence[Sample], CandidateLists], Sequence[list[Candidate] | BadSample]]


@dataclass(kw_only=True)
class FeedbackPipeline:
    """One pass of feedback over prompts, into one directory.

    Args:
        feedback: settings of the pass.
        policy: model that answers the prompts.
        prompts: prompts to answer.
        out: directory of the preference shards; `stages` in it holds the chunks.
        seed: decides all draws, together with the samples' keys.
        round: round that the shards belong to; None outside of rounds.
        executor: runs the stages: this process alone, this process's share of several, or actors.
        clock: called with the name and the seconds of each stage when it is done.
    """

    feedback: FeedbackConfig
    policy: Engine
    prompts: PromptSet
    out: Path
    seed: int
    round: int | None = None
    executor: Executor = field(default_factory=RankShare)
    clock: Callable[[str, float], None] = lambda _stage, _seconds: None

    def make(self) -> Manifest:
        """Run all missing stages and return the manifest of the finished shards.

        Raises:
            EngineError: the settings cannot make pairs, the labeler does not pass the gate, or a model cannot be asked
                or gives no usable answer.
            BadSample: two prompts have one key, or a key leaves no room for the number of a pair.
            FileExistsError: `out` holds other shards.
            TimeoutError: another process does not make its chunks.
        """
        check_feedback(self.feedback, self.prompts, self.out)
        if (gate := self.feedback.gate) is not None:
            gate.check(gate.grade_once(self.feedback.labeler, self.policy, self.out / STAGES, self.executor))
        previous: Chunks | None = None
        for chunks, stage in self._stages:
            self._timed(chunks.stage, partial(self._run_stage, chunks, previous, stage))
            previous = chunks
            self.policy.release()
            self.feedback.splitter.release()
        self.feedback.labeler.release()
        recipe = self.recipe()
        if not is_finished(self.out, recipe) or (self.executor.is_main_process and self._has_changed()):
            for chunks, _ in self._stages:  # The last stage's come only after the earlier ones'.
                chunks.wait(WAIT_SECONDS)
            if self.executor.is_main_process:
                self._timed("pair", partial(self._write, recipe))
            wait_for(lambda: is_finished(self.out, recipe), f"the manifest in {self.out}")
        return read_manifest(self.out)

    def candidates(self) -> Iterator[Judged]:
        """Yield the scored candidates of each prompt; all stages are done by then."""
        for row in self._judged.rows():
            candidates = decode_candidates(row["candidates"])
            combined = [scored(candidate, self.feedback.combine) for candidate in candidates]
            yield Judged(row["key"], combined, row.get(REFUSED))

    def _has_changed(self) -> bool:
        """Return whether prompts that were unfinished when the shards were written have been answered since."""
        unfinished = sum(bool(row.get(UNFINISHED)) for row in self._judged.rows())
        return read_manifest(self.out).notes.get("unfinished", 0) != unfinished

    @cached_property
    def _stages(self) -> list[tuple[Chunks, Stage]]:
        """The chunks of each stage and its function; files are keyed by settings and the stage before."""
        settings = self.settings(self.policy.identity)
        functions: dict[str, Stage] = {
            "generate": self._generate,
            "divide": self._divide,
            "conquer": self._conquer,
        }
        count, size = len(self.prompts.numbers), self.feedback.prompts_per_part
        stages: list[tuple[Chunks, Stage]] = []
        for name, function in functions.items():
            recipe = {"settings": settings[name], "before": stages[-1][0].hash if stages else None}
            stages.append((Chunks(self.out / STAGES, name, recipe, count, size), function))
        return stages

    @property
    def _judged(self) -> Chunks:
        return self._stages[-1][0]

    def settings(self, policy: str = "") -> dict[str, Any]:
        """Return by stage everything that decides its result; the policy by its identity, if given."""
        how = self.feedback
        first = {"policy": policy, "prompts": self.prompts.recipe(), "seed": self.seed}
        return {
            "generate": first | asdict(how.sampling) | {"version": VERSION},
            "divide": how.splitter.recipe() | {"truncated": how.truncated},
            "conquer": how.labeler.recipe(policy),
            "pair": how.pair_recipe(),
        }

    def recipe(self) -> dict[str, Any]:
        """Return everything that decides the shards, the policy included."""
        return {"policy": self.policy.identity, "settings": self.settings(), "judged": self._judged.hash}

    def _run_stage(self, chunks: Chunks, previous: Chunks | None, stage: Stage) -> None:
        numbers = self.executor.numbers(chunks)
        is_shown = self.executor.is_main_process and not all(map(chunks.is_finished, numbers))
        title = chunks.stage if self.round is None else f"round {self.round}: {chunks.stage}"
        steps = self.executor.make(chunks, partial(self._rows, previous, stage))
        for _ in track(steps, title, len(numbers), is_shown=is_shown):
            pass

    def _rows(self, previous: Chunks | None, stage: Stage, places: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Yield a stage's rows of some prompts of one chunk."""
        rows = self._first_rows(places) if previous is None else self._rows_of(previous, places)
        usable = [place for place in places if REFUSED not in rows[place]]
        candidates = [decode_candidates(rows[place]["candidates"]) for place in usable]
        samples = [self._prompt(place) for place in usable]
        results = dict(zip(usable, stage(samples, candidates), strict=True)) if usable else {}
        for place in places:
            yield rows[place] | (_row(results[place], rows[place]) if place in results else {})

    def _rows_of(self, chunks: Chunks, places: Sequence[int]) -> dict[int, dict[str, Any]]:
        number = places[0] // self.feedback.prompts_per_part
        rows = dict(zip(chunks.slices[number], chunks.read(number), strict=True))
        return {place: rows[place] for place in places}

    def _first_rows(self, places: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Return rows without candidates; unreadable prompts are marked as refused."""
        rows: dict[int, dict[str, Any]] = {}
        for place in places:
            rows[place] = {"key": self._keys[place], "candidates": []}
            if (fault := prompt_fault(self.prompts, place)) is not None:
                stderr.print(f"left out: {fault}", markup=False, highlight=False)
                rows[place][REFUSED] = str(fault.reason)
        return rows

    def _generate(self, samples: Sequence[Sample], _: CandidateLists) -> list[list[Candidate] | BadSample]:
        def sample(numbers: Sequence[int]) -> CandidateLists:
            prompts = [samples[number] for number in numbers]
            return sample_candidates(self.policy, prompts, self.feedback.sampling, self.seed)

        candidates = skip_bad_prompts(samples, sample)
        show_faults(candidates)
        return candidates

    def _divide(self, samples: Sequence[Sample], candidates: CandidateLists) -> CandidateLists:
        keep = self.feedback.truncated == "keep"
        usable = [[usable_part(candidate, keep=keep) for candidate in of_prompt] for of_prompt in candidates]
        return split_candidates(self.feedback.splitter, list(map(prompt_question, samples)), usable)

    def _conquer(
        self, samples: Sequence[Sample], candidates: CandidateLists
    ) -> list[list[Candidate] | BadSample]:
        def judge(numbers: Sequence[int]) -> CandidateLists:
            some, answers = [samples[n] for n in numbers], [candidates[n] for n in numbers]
            return judge_claims(some, answers, self.feedback.labeler, self.policy)

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
        """Report prompts without usable answers; without any pair, delete their chunks and raise EngineError."""
        if not (unfinished := outcome.notes.get("unfinished")):
            return
        affected = f"{unfinished} of {outcome.notes['prompts']} prompts ({_counts(outcome.drops)})"
        if outcome.pairs:
            stderr.print(
                f"warning: models' answers could not be used about {affected}. The same command asks about them again. "
                f"{remedies(outcome.drops)}",
                soft_wrap=True,
            )
            return
        for chunks, _ in self._stages:
            for number in range(len(chunks.slices)):
                if all(row.get(UNFINISHED) is not None for row in chunks.read(number)):
                    chunks.drop(number)
        raise EngineError(
            f"No pair was made: models' answers could not be used about {affected}. {remedies(outcome.drops)} The same "
            "command then asks again what was not answered."
        )

    @cached_property
    def _keys(self) -> list[str]:
        return self.prompts.keys()

    def _prompt(self, place: int) -> Sample:
        (sample,) = self.prompts.read(range(place, place + 1))
        return sample

    def _timed(self, stage: str, work: Callable[[], Any]) -> None:
        started = time.monotonic()
        work()
        self.clock(stage, time.monotonic() - started)


def _row(result: list[Candidate] | BadSample, previous: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a stage adds to a prompt's row of the stage before."""
    if isinstance(result, BadSample):
        return {"candidates": [], REFUSED: str(result.reason)}
    unfinished = previous.get(UNFINISHED) or is_unfinished(result)
    return {"candidates": encode_candidates(result)} | ({UNFINISHED: True} if unfinished else {})


def _counts(drops: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(drops.items()))
