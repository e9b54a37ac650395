"""What shapes say of a step, against the same step with values."""

import itertools

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from rlaifv_pl.data.shards import load_shards
from rlaifv_pl.models.policy import LoRA, PolicySpec
from rlaifv_pl.objectives import DPOModule
from rlaifv_pl.preflight.memory import Situation, in_shapes, memory_of
from rlaifv_pl.preflight.parallelism import Parallelism
from rlaifv_pl.preflight.shapes import Held, Shape, counted
from tests import family_models
from tests.families import build, install_torchvision_shim
from tests.training.tiny import write_pairs

install_torchvision_shim()
PEAK_TOLERANCE = 0.02
KINDS = [
    (attention, checkpointing, lora, torch.bfloat16 if checkpointing == (lora is None) else None)
    for attention, checkpointing, lora in itertools.product(
        ("auto", "rows"), (False, True), (None, LoRA(rank=2))
    )
]


def dpo(path, attention="auto", checkpointing=False, lora=None, **options) -> DPOModule:
    spec = PolicySpec(path=str(path), attention=attention, gradient_checkpointing=checkpointing, lora=lora)
    return DPOModule(policy=spec, optimizer=torch.optim.AdamW, **options)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return load_shards([write_pairs(tmp_path_factory.mktemp("pairs") / "shards", 6)])


def batch_of(module, samples):
    return module.collator("raise")([samples[number] for number in range(len(samples))])


def storage(tensor):
    return (tensor.meta if isinstance(tensor, Shape) else tensor).untyped_storage()


def kept(module, batch, spread: Parallelism) -> list[int]:
    """Bytes of each storage that autograd keeps for the backward pass of a step, weights left out."""
    found = []

    def keep(tensor):
        found.append(storage(tensor))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), spread.autocast():
        loss = module.objective(batch).loss
    weights = {storage(parameter)._cdata for parameter in module.policy.parameters()}
    sizes = {each._cdata: each.nbytes() for each in found if each._cdata not in weights}
    assert loss.requires_grad
    return sorted(sizes.values())


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_autograd_keeps_the_same_bytes_of_shapes_as_of_values(family_dir, samples, family):
    for attention, checkpointing, lora, mixed in KINDS:
        module = dpo(family_dir(family), attention, checkpointing, lora)
        batch, spread = batch_of(module, samples), Parallelism(mixed=mixed)
        shapes = kept(in_shapes(module, spread), batch, spread)
        module.configure_model()
        assert shapes == kept(module, batch, spread), (attention, checkpointing, lora, mixed)
        assert len(shapes) > 5


def allocated(module, batch, spread: Parallelism) -> int:
    """The most that the process allocates in forward and backward of a real step, as the profiler sees it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        with spread.autocast():
            loss = module.objective(batch).loss
        loss.backward()
    events = profiled.profiler.kineto_results.events()
    return max(itertools.accumulate(event.nbytes() for event in events if event.name() == "[memory]"))


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A LLaVA whose activations outweigh what an allocator rounds up."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(family_models._DECODER, "intermediate_size", 2048)
        patched.setitem(family_models._DECODER, "num_hidden_layers", 4)
        return build("llava", tmp_path_factory.mktemp("wide") / "llava")


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointing"])
@pytest.mark.parametrize(("attention", "lora", "mixed"), [
    ("auto", None, None), ("rows", None, torch.bfloat16), ("auto", LoRA(rank=2), torch.bfloat16),
])  # fmt: skip
def test_the_peak_is_that_of_the_allocator(wide, samples, attention, lora, mixed, checkpointing):
    module, spread = dpo(wide, attention, checkpointing, lora), Parallelism(mixed=mixed)
    batch = batch_of(module, samples)
    memory = memory_of(module, Situation(batch, spread, is_cuda=False, accumulates=False))
    module.configure_model()
    found = memory.steady["gradients"] + memory.passing["activations"]
    assert found == pytest.approx(allocated(module, batch, spread), rel=PEAK_TOLERANCE)


def test_views_hold_nothing_and_what_nobody_uses_is_given_back():
    held = Held()
    weight = Shape(torch.empty(256, 256, device="meta"))
    with counted(held):
        transposed = weight.t()
        product = transposed @ weight
        row = product[0]
        assert held.now == 256 * 256 * 4
        del product
        assert held.now == 256 * 256 * 4  # Of which the row is a part.
        del row
    assert (held.now, held.peak) == (0, 256 * 256 * 4)
    assert transposed.shape == (256, 256)


def test_masks_choose_by_their_values():
    values = Shape(torch.empty(4, 3, device="meta"))
    mask = torch.tensor([True, False, True, True])
    assert values[mask].shape == (3, 3)
    with pytest.raises(RuntimeError):
        values.sum().item()
