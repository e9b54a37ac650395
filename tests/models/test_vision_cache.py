"""What is kept of a frozen tower gives what the tower gives, for every family, and is no more than is read."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from rlaifv_pl.data.images import open_image
from rlaifv_pl.data.sidecar import SidecarError
from rlaifv_pl.data.vision_features import assemble_features, feature_name, image_inputs
from rlaifv_pl.models.chat import Chat
from rlaifv_pl.models.policy import LoRA, PolicyError, PolicySpec, load_processor, vision_tower
from rlaifv_pl.models.reference import Reference
from rlaifv_pl.models.vision_cache import VisionFeatureLayout, patched_forward, vision_output
from rlaifv_pl.models.vlm import VLM, Batch
from rlaifv_pl.records import Sample
from tests.families import FAMILIES
from tests.models.plain import PAIRS, TEXT_ONLY, keep_wide, photo
from tests.models.test_vlm import Case, load, tower_inputs

READ = {
    "llava": ["['hidden_states'][1]"],
    "llava_next": ["['hidden_states'][1]"],
    "qwen2_5_vl": ["['pooler_output']"],
    "qwen3_vl": ["['pooler_output']", "['deepstack_features'][0]", "['deepstack_features'][1]"],
    "gemma3": ["['last_hidden_state']"],
    "idefics3": ["['last_hidden_state']"],
    "smolvlm": ["['last_hidden_state']"],
    "internvl": ["['last_hidden_state']"],
}
"""What each family's `get_image_features` takes out of its tower's output."""

SAMPLES = {
    "pairs and text": [*PAIRS, TEXT_ONLY],
    "two images of a sample": [PAIRS[0], replace(PAIRS[1], images=(photo(1), photo(2, 56, 56)))],
    "a prompt twice": [*PAIRS, replace(PAIRS[0], key="c", rejected="Nothing.")],
    "images on both sides": [replace(PAIRS[0], rejected_images=(photo(7, 28, 56),)), PAIRS[1], TEXT_ONLY],
}


class Kept(NamedTuple):
    """A family in float64, with the layout of its tower."""

    case: Case
    layout: VisionFeatureLayout

    def of(self, sample: Sample) -> dict[str, Tensor]:
        """What is kept of a sample: its tower, run on its images alone."""
        chat, known = Chat(self.case.processor), {}
        for rejected, images in ((False, sample.images), (True, sample.rejected_images)):
            given = wide(image_inputs(chat, [[open_image(data, "here") for data in images]]))
            model = self.case.policy.model
            leaves = self.layout.take(vision_output(model, given)) if given else self.layout.empty
            known |= {feature_name(number, rejected): leaf for number, leaf in enumerate(leaves)}
        return known

    def batch(self, samples: Sequence[Sample]) -> Batch:
        """Whose tower features are put together from those of its samples."""
        batch = self.case.batch(samples)
        kept = [samples[number] for number in batch.accounting.kept]
        batch.precomputed.vision_features = assemble_features(batch, kept, lambda place: self.of(kept[place]))
        return batch


def wide(images: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.double() if value.is_floating_point() else value for name, value in images.items()}


@pytest.fixture(scope="module", params=FAMILIES)
def kept(request: pytest.FixtureRequest, family_dir: Callable[[str], Path]) -> Kept:
    path = family_dir(request.param)
    policy = keep_wide(load(path, torch.float64))
    case = Case(request.param, path, policy, load_processor(PolicySpec(path=str(path))))
    example = wide(image_inputs(Chat(case.processor), [[open_image(photo(3), "here")]]))
    return Kept(case, VisionFeatureLayout(policy.model, example))


def gradients(policy: VLM, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-ps, and slopes of a weighting of them in all that trains."""
    policy.zero_grad()
    logps = policy(batch)
    (logps * torch.linspace(-1, 1, len(logps), dtype=logps.dtype)).sum().backward()
    slopes = {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
    return logps.detach(), slopes


@pytest.mark.parametrize("samples", SAMPLES.values(), ids=SAMPLES)
def test_log_ps_and_gradients_are_those_of_the_tower(kept: Kept, samples):
    policy = kept.case.policy
    policy.tower_layout = None
    expected, slopes = gradients(policy, kept.case.batch(samples))
    batch = kept.batch(samples)
    policy.tower_layout = kept.layout
    gradients(policy, batch)
    with tower_inputs(vision_tower(policy.model)) as seen:
        found, own = gradients(policy, batch)
    assert seen == [], "the first batch is computed both ways, later ones are not"
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert own.keys() == slopes.keys() and any("language_model" not in name for name in own)
    for name, slope in slopes.items():
        torch.testing.assert_close(own[name], slope, rtol=0, atol=1e-10 * max(1, slope.abs().max().item()))


def test_only_what_the_model_reads_is_kept(kept: Kept):
    assert kept.layout.names == READ[kept.case.family]
    assert all(len(leaf) == 0 for leaf in kept.layout.empty)


@pytest.mark.parametrize("mode", ["live", "adapter_off"])
def test_a_reference_takes_over_what_the_policy_was_given(kept: Kept, mode: str):
    adapters = LoRA(rank=2) if mode == "adapter_off" else None
    policy = keep_wide(load(kept.case.path, torch.float64, lora=adapters))
    reference = Reference(policy, mode)
    batch = kept.batch(SAMPLES["pairs and text"])
    with torch.no_grad():
        expected = policy(batch)
        policy.tower_layout = kept.layout
        policy(batch)
        towers = {vision_tower(model.model) for model in (policy, reference.copy) if model}
        with tower_inputs(*towers) as seen:
            with reference.capture_vision_features():
                policy(batch)
            compared = reference.token_logps(batch)
    assert seen == []
    torch.testing.assert_close(compared, expected, rtol=0, atol=1e-10)
    assert "forward" not in vars(vision_tower(policy.model)), "the tower is itself again"


@pytest.mark.parametrize("several", [False, True], ids=["first of one tree", "first of several"])
def test_features_of_other_images_are_refused_at_the_first_batch(kept: Kept, several: bool):
    policy = kept.case.policy
    policy.tower_layout = VisionFeatureLayout(policy.model, wide(kept.case.batch(PAIRS[:1]).tokens.images))
    same_size = [replace(pair, images=(photo(seed, 56, 56),)) for seed, pair in enumerate(PAIRS)]
    if several:
        policy(kept.batch(same_size[:1]))
    batch = kept.case.batch(same_size if several else same_size[:1])
    others = same_size[::-1] if several else same_size[1:]
    batch.precomputed.vision_features = assemble_features(batch, others, lambda place: kept.of(others[place]))
    with (
        torch.no_grad(),
        pytest.raises(PolicyError, match=r"differ by [\d.]+ of .* data.cache_vision: false"),
    ):
        policy(batch)


def test_a_tower_that_pads_to_the_largest_image_is_refused(family_dir):
    path = family_dir("llava")
    policy = load(path)
    tower, chat = vision_tower(policy.model), Chat(load_processor(PolicySpec(path=str(path))))
    one, other = (image_inputs(chat, [[open_image(photo(seed), "here")]]) for seed in (0, 1))
    layout = VisionFeatureLayout(policy.model, one)
    alone = layout.take(vision_output(policy.model, one))

    def padded(forward: Callable, *inputs, **options):
        output = forward(*inputs, **options)
        states = (
            state if state is None else torch.cat([state, state[:, :1]], 1) for state in output.hidden_states
        )
        output.hidden_states = tuple(states)
        return output

    with patched_forward(tower, lambda *a, **o: padded(type(tower).forward, tower, *a, **o)):
        output = vision_output(policy.model, other)
    with pytest.raises(PolicyError, match=r"shapes \[\(1, 6, 32\)\].* data.cache_vision: false"):
        layout.take(output)
    # One that stands in a row of its own with all images, as towers of packed patches do.
    together = image_inputs(chat, [[open_image(photo(seed), "here")] for seed in (0, 1)])
    with pytest.raises(PolicyError, match=r"data.cache_vision: false"):
        layout.check(policy.model, together, [torch.cat([leaf, leaf], 1) for leaf in alone])


def test_a_sample_of_which_nothing_was_kept_is_named(kept: Kept):
    batch = kept.case.batch(PAIRS)
    nothing = {
        feature_name(n, side): leaf for n, leaf in enumerate(kept.layout.empty) for side in (False, True)
    }
    with pytest.raises(SidecarError, match=r"sample a has images, .* directories tower-\*"):
        assemble_features(batch, PAIRS, lambda _place: nothing)


def test_a_projector_gets_its_gradient_under_autocast(family_dir):
    """The check runs without gradients in the same context, whose cached weights must not serve the step."""
    path = family_dir("llava")
    policy = load(path)
    case = Case("llava", path, policy, load_processor(PolicySpec(path=str(path))))
    batch = case.batch(PAIRS)
    with torch.autocast("cpu", torch.bfloat16):
        policy.tower_layout = VisionFeatureLayout(policy.model, batch.tokens.images)
        batch.precomputed.vision_features = policy.tower_layout.take(
            vision_output(policy.model, batch.tokens.images)
        )
        logps = policy(batch)
    logps.sum().backward()
    assert all(p.grad is not None for name, p in policy.named_parameters() if "projector" in name)


@pytest.mark.parametrize("context", [nullcontext, torch.inference_mode])
def test_a_layout_is_found_in_a_validation_too(family_dir, context):
    path = family_dir("llava")
    policy = load(path)
    images = (
        Case("llava", path, policy, load_processor(PolicySpec(path=str(path)))).batch(PAIRS).tokens.images
    )
    with context():
        assert VisionFeatureLayout(policy.model, images).names == READ["llava"]
