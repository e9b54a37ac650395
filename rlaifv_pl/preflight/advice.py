"""What to change where a run does not fit, each change with what it comes to."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict, Unpack

import torch

from rlaifv_pl.models.policy import LoRA
from rlaifv_pl.models.reference import ReferenceMode
from rlaifv_pl.models.vlm import Batch
from rlaifv_pl.objectives.base import AlignmentModule
from rlaifv_pl.preflight.machine import Machine
from rlaifv_pl.preflight.memory import MemoryEstimate, Situation, memory_of
from rlaifv_pl.preflight.parallelism import Parallelism

MANY = 8
"""Devices that are proposed to someone who has one."""


class Settings(TypedDict, total=False):
    """Of `policy`, those that a change may set."""

    dtype: Literal["float32", "bfloat16", "float16"]
    attention: str
    freeze_vision: bool
    freeze_projector: bool
    freeze: list[str]
    lora: LoRA
    gradient_checkpointing: bool


@dataclass(frozen=True)
class Case:
    """A run as it is, or as it would be."""

    module: AlignmentModule
    now: Situation

    def memory(self) -> MemoryEstimate:
        """Of a device."""
        return memory_of(self.module, self.now)

    def with_policy(self, **changes: Unpack[Settings]) -> "Case":
        """With other settings of `policy`."""
        module = copy.copy(self.module)
        module.policy_spec = replace(self.module.policy_spec, **changes)
        return replace(self, module=module)

    def with_reference(self, mode: ReferenceMode) -> "Case":
        """With another mode of the reference."""
        module = copy.copy(self.module)
        module.reference_mode = mode
        return replace(self, module=module)


@dataclass(frozen=True)
class Change:
    """One thing to change."""

    words: str
    """Options and config files, as a user writes them."""
    apply: Callable[[Case], Case]


@dataclass(frozen=True)
class Advice:
    """A change, or several together, and what they come to."""

    words: str
    total: int
    """Bytes of a device."""


def advise(case: Case, machine: Machine, smaller: Callable[[], Batch], room: int) -> list[Advice]:
    """Changes by themselves, the one that saves most first; then, where none is enough, one after the other until they
    are.

    Args:
        case: the run as it is.
        machine: that it is to fit on.
        smaller: collates the largest sample alone.
        room: bytes of a device that it may take.
    """
    possible = list(changes(case, machine, smaller))
    singles = [(Advice(change.words, change.apply(case).memory().total), change) for change in possible]
    before = case.memory().total
    singles = sorted((s for s in singles if s[0].total < before), key=lambda single: single[0].total)
    advice = [single for single, _ in singles]
    if not advice or advice[0].total <= room:
        return advice
    return advice + _together(case, [change for _, change in singles], room)


def _together(case: Case, ordered: Sequence[Change], room: int) -> list[Advice]:
    words, made = [], case
    for change in ordered:
        made, words = change.apply(made), [*words, change.words]
        if len(words) > 1 and (total := made.memory().total) <= room:
            return [Advice(" and ".join(words), total)]
    return []


def changes(case: Case, machine: Machine, smaller: Callable[[], Batch]) -> Iterator[Change]:
    """What could be changed of a run, whether it helps or not."""
    spec, now = case.module.policy_spec, case.now
    if case.module.reference_mode == "live":
        yield Change("model.reference: cached", lambda case: case.with_reference("cached"))
    if not spec.gradient_checkpointing:
        yield Change(
            "model.policy.gradient_checkpointing: true",
            lambda case: case.with_policy(gradient_checkpointing=True),
        )
    if spec.attention == "rows":
        yield Change("model.policy.attention: auto", lambda case: case.with_policy(attention="auto"))
    if len(now.batch.keys) > 1:
        alone = smaller()
        yield Change(
            "data.batch_size: 1",
            lambda case: replace(case, now=replace(case.now, batch=alone, accumulates=True)),
        )
    if spec.lora is None:
        yield Change("--config lora", _adapted)
    elif spec.dtype == "float32":
        yield Change("model.policy.dtype: bfloat16", lambda case: case.with_policy(dtype="bfloat16"))
    if now.is_cuda and now.spread.together == 1:
        devices = machine.world if machine.world > 1 else MANY
        sliced = Parallelism(together=devices, compute=torch.bfloat16)
        yield Change(
            f"--config machine/fsdp on {devices} devices",
            lambda case: replace(case, now=replace(case.now, spread=sliced)),
        )


def _adapted(case: Case) -> Case:
    made = case.with_policy(lora=LoRA(), freeze=[], freeze_vision=True, freeze_projector=False)
    return made.with_reference("adapter_off") if made.module.reference_mode == "live" else made
