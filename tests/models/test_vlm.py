"""One forward for a batch of pairs equals the plain computation, row by row, and runs the tower once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from rlaifv_pl.data.collate import Collator
from rlaifv_pl.models.chat import Chat, Dialogue, prompt_messages, text_message
from rlaifv_pl.models.policy import LoRA, PolicySpec, load_model, load_processor, vision_tower
from rlaifv_pl.models.reference import Reference, copy_frozen
from rlaifv_pl.models.vlm import VLM, Batch
from rlaifv_pl.records import Sample
from tests.families import FAMILIES
from tests.models.plain import PAIRS, TEXT_ONLY, completion_logps, encode, keep_wide, photo, user

MIXED = [*PAIRS, TEXT_ONLY]
WIDE = {torch.float32: 1e-4, torch.float64: 1e-10}


def sides(sample: Sample) -> list[Dialogue]:
    prompt = prompt_messages(sample)
    return [
        Dialogue([*prompt, text_message("assistant", sample.chosen)], (0,)),
        Dialogue([*prompt, text_message("assistant", sample.rejected)], (1,), rejected_images=True),
    ]


class Case(NamedTuple):
    """A family's tiny checkpoint with everything in it free to train."""

    family: str
    path: Path
    policy: VLM
    processor: object

    def batch(self, samples: Sequence[Sample]) -> Batch:
        batch = Collator(Chat(self.processor), sides, parts=2)(samples)
        dtype = self.policy.model.dtype
        batch.tokens.images = {
            name: value.to(dtype) if value.is_floating_point() else value
            for name, value in batch.tokens.images.items()
        }
        return batch

    def by_side(self, samples: Sequence[Sample]) -> dict[tuple[str, int], Tensor]:
        """The token log-ps of each sample's chosen (0) and rejected (1) answer, out of one batch."""
        batch = self.batch(samples)
        return split(self.policy(batch), batch)

    def plain(self, sample: Sample, part: int) -> Tensor:
        answer = (sample.chosen, sample.rejected)[part]
        images = sample.rejected_images if part and sample.rejected_images else sample.images
        return completion_logps(self.policy.model, self.processor, self.family, sample, answer, images)


def split(logps: Tensor, batch: Batch) -> dict[tuple[str, int], Tensor]:
    size = len(batch.keys)
    return {
        (batch.keys[g % size], g // size): logps[batch.tokens.sequence_id == g]
        for g in range(batch.num_sequences)
    }


def load(path: Path, dtype: torch.dtype = torch.float32, **changes) -> VLM:
    spec = PolicySpec(path=str(path), **changes)
    return VLM(load_model(spec)).to(dtype).train()


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, family_dir: Callable[[str], Path]) -> Case:
    path = family_dir(request.param)
    return Case(
        request.param, path, load(path, freeze_vision=False), load_processor(PolicySpec(path=str(path)))
    )


@pytest.fixture(scope="module")
def llava(family_dir: Callable[[str], Path]) -> Case:
    path = family_dir("llava")
    policy = keep_wide(load(path, torch.float64, freeze_vision=False))
    return Case("llava", path, policy, load_processor(PolicySpec(path=str(path))))


def assert_equals_plain(case: Case, samples: Sequence[Sample]) -> None:
    """Log-ps, and the gradient of a random weighting of them in every parameter, the tower's included."""
    tolerance = WIDE[case.policy.model.dtype]
    ours = case.by_side(samples)
    theirs = {(sample.key, part): case.plain(sample, part) for sample in samples for part in (0, 1)}
    assert ours.keys() == theirs.keys()
    for name, logps in theirs.items():
        torch.testing.assert_close(
            ours[name], logps, rtol=0, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}"
        )
    assert all(len(logps) > 1 for logps in theirs.values())

    generator = torch.Generator().manual_seed(0)
    slopes = {name: torch.randn(len(logps), generator=generator).to(logps) for name, logps in theirs.items()}
    parameters = dict(case.policy.named_parameters())
    mine, plain = (
        torch.autograd.grad(
            sum((slopes[name] * logps).sum() for name, logps in values.items()),
            list(parameters.values()),
            allow_unused=True,
        )
        for values in (ours, theirs)
    )
    for name, one, other in zip(parameters, mine, plain, strict=True):
        assert (one is None) == (other is None), name
        if one is not None:
            size = max(1, other.abs().max().item())
            torch.testing.assert_close(
                one, other, rtol=0, atol=tolerance * size, msg=lambda text, n=name: f"{n}: {text}"
            )
    tower = {id(parameter) for parameter in vision_tower(case.policy.model).parameters()}
    moved = [g for p, g in zip(parameters.values(), mine, strict=True) if id(p) in tower and g is not None]
    # LLaVA reads the second last of two layers.
    assert len(moved) > 0.5 * len(tower) and max(gradient.abs().max() for gradient in moved) > 1e-3


def test_log_ps_and_gradients_equal_one_row_at_a_time(case: Case):
    assert_equals_plain(case, MIXED)


def test_in_float64_they_are_equal_to_rounding(llava: Case):
    assert_equals_plain(llava, MIXED)


def test_the_sides_may_have_images_of_their_own(case: Case):
    """One sample with, one without, and one that has no image at all."""
    other = replace(PAIRS[0], rejected_images=(photo(7, 28, 56),))
    samples = [other, *MIXED[1:]]
    assert_equals_plain(case, samples)
    with torch.no_grad():
        shift = (case.plain(other, 1) - case.plain(PAIRS[0], 1)).abs().max()
    assert shift > 1e-2


def test_two_images_of_a_sample_equal_one_row_at_a_time(case: Case):
    two = replace(PAIRS[1], images=(photo(1), photo(2, 56, 56)))
    with torch.no_grad():
        ours = case.by_side([PAIRS[0], two])
        for part in (0, 1):
            torch.testing.assert_close(ours["b", part], case.plain(two, part), rtol=0, atol=1e-4)


def test_company_and_order_do_not_matter(case: Case):
    """What pads a row and which rows stand beside it changes nothing."""
    with torch.no_grad():
        together = case.by_side(MIXED)
        turned = case.by_side(MIXED[::-1])
        alone = {name: logps for sample in MIXED for name, logps in case.by_side([sample]).items()}
    for name, logps in together.items():
        torch.testing.assert_close(turned[name], logps, rtol=0, atol=1e-4)
        torch.testing.assert_close(alone[name], logps, rtol=0, atol=1e-4)


def test_padding_tokens_are_never_read(llava: Case):
    batch = llava.batch(MIXED)
    before = llava.policy(batch)
    padding = batch.tokens.rows["attention_mask"] == 0
    assert padding.sum() > 5
    batch.tokens.rows["input_ids"] = batch.tokens.rows["input_ids"].where(~padding, 77)
    assert torch.equal(llava.policy(batch), before)


@contextmanager
def tower_inputs(*towers: nn.Module) -> Iterator[list[int]]:
    """How many images, tiles or patches enter any of the towers, a number for each call of its forward."""
    seen: list[int] = []

    def note(_module, inputs, options) -> None:
        pixels = next(value for value in (*inputs, *options.values()) if isinstance(value, Tensor))
        seen.append(len(pixels))

    hooks = []
    for tower in towers:
        # Below the tower's own forward, which a memo may stand in for: its first child with weights.
        child = next(
            module for name, module in tower.named_modules() if name and list(module.parameters(False))
        )
        hooks.append(child.register_forward_pre_hook(note, with_kwargs=True))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("mode", ["live", "adapter_off"])
def test_a_dpo_step_with_its_reference_encodes_each_image_once(case: Case, mode: str):
    """As much enters the tower as when each image is encoded alone, in one call for the whole step."""
    policy = load(case.path, lora=LoRA(rank=2) if mode == "adapter_off" else None)
    reference = Reference(policy, mode)
    batch = case.batch(MIXED)
    towers = {vision_tower(model.model) for model in (policy, reference.copy) if model}
    with tower_inputs(*towers) as seen:
        with reference.capture_vision_features():
            logps = policy(batch)
        compared = reference.token_logps(batch)
        logps.sum().backward()
    torch.testing.assert_close(compared, logps.detach(), rtol=0, atol=1e-5)
    assert not compared.requires_grad

    with torch.no_grad(), tower_inputs(vision_tower(case.policy.model)) as alone:
        for sample in PAIRS:
            text = Chat(case.processor).render([user(sample.prompt, 1)], ask=True)
            case.policy.model(**encode(case.processor, text, sample.images))
    assert len(alone) == 2
    assert seen == [sum(alone)]


@pytest.mark.parametrize("mode", ["live", "adapter_off"])
def test_the_reference_stays_where_the_policy_began(case: Case, mode: str):
    """Adapters are moved off zero, weights off their start; the plain model from disk is the judge."""
    policy = load(case.path, lora=LoRA(rank=2) if mode == "adapter_off" else None)
    reference = Reference(policy, mode)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        batch = case.batch(MIXED)
        with reference.capture_vision_features():
            moved = split(policy(batch), batch)
        compared = split(reference.token_logps(batch), batch)
        assert torch.equal(reference.token_logps(batch), reference.token_logps(batch))
        for sample in MIXED:
            for part in (0, 1):
                start = case.plain(sample, part)
                torch.testing.assert_close(compared[sample.key, part], start, rtol=0, atol=1e-4)
                assert (moved[sample.key, part] - start).abs().max() > 1e-2
    assert policy.training


def test_a_reference_of_a_training_tower_runs_its_own(llava: Case):
    """Shared features would carry what the policy's tower has learnt into the reference; one free layer of
    it is enough."""
    policy = load(llava.path, freeze_vision=False, freeze=["*vision_tower*.layers.1.*", "*post_layernorm*"])
    reference = Reference(policy, "live")
    batch = Case("llava", llava.path, policy, llava.processor).batch(PAIRS)
    with torch.no_grad():
        before = policy(batch)
        for parameter in vision_tower(policy.model).parameters():
            if parameter.requires_grad:
                parameter *= 1.5
        with reference.capture_vision_features():
            after = policy(batch)
        torch.testing.assert_close(reference.token_logps(batch), before, rtol=0, atol=1e-5)
    assert (after - before).abs().max() > 1e-2


def test_a_batch_of_nothing_has_no_groups(llava: Case):
    batch = llava.batch([])
    assert (batch.keys, batch.num_sequences, len(batch.tokens.labels)) == ([], 0, 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_policy_cast_to_bfloat16_keeps_the_positions_of_its_reference(family, family_dir):
    """Lightning's bf16-true casts the policy, buffers and all, after the reference was taken."""
    policy = VLM(load_model(PolicySpec(path=str(family_dir(family)), dtype="bfloat16")))
    reference = copy_frozen(policy)
    policy.to(torch.bfloat16)
    before = dict(reference.named_buffers())
    for name, buffer in policy.named_buffers():
        assert buffer.dtype == before[name].dtype and torch.equal(buffer, before[name]), name
    assert any(
        "inv_freq" in name and buffer.dtype == torch.float32 for name, buffer in policy.named_buffers()
    )
