"""The tiny families behave alike where the package relies on it, through public arguments only."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

from tests.families import FAMILIES, build

PIXELS = ("pixel_values", "pixel_attention_mask", "image_sizes")  # what only the vision tower reads
QUESTIONS = ["What is in the image?", "Is there a dog to the left of the cup?"]
CHOSEN = ["A red circle.", "No, there is no dog in this image, and there is no cup on the table."]
REJECTED = ["There are two cats and a chair on the street.", "Yes."]


class Case(NamedTuple):
    """One family, loaded from disk."""

    family: str
    model: PreTrainedModel
    processor: ProcessorMixin

    def encode(self, images: list[list[Image.Image]], texts: list[str]) -> dict[str, Tensor]:
        """The rows as the model takes them, padded right, with one beginning token if the family has one."""
        bos = self.processor.tokenizer.bos_token
        rows = self.processor(
            images=images if any(images) else None,
            text=texts,
            padding=True,
            padding_side="right",
            add_special_tokens=bos is None or not texts[0].startswith(bos),
            return_tensors="pt",
        )
        return dict(rows)

    def image_features(self, rows: dict[str, Tensor]) -> Any:
        """What the vision path makes of the images in `rows`."""
        names = inspect.signature(self.model.get_image_features).parameters
        return self.model.get_image_features(
            **{name: value for name, value in rows.items() if name in names}, return_dict=True
        )

    def prompt(self, question: str, image: bool = True) -> str:
        """The rendered prompt, up to where the answer starts."""
        return self.processor.apply_chat_template([_user(question, image)], add_generation_prompt=True)

    def conversation(self, question: str, answer: str) -> str:
        """The rendered prompt and answer, with whatever the template puts behind an answer."""
        reply = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
        return self.processor.apply_chat_template([_user(question, True), reply])


def _user(question: str, image: bool) -> dict:
    items = [{"type": "image"}] if image else []
    return {"role": "user", "content": [*items, {"type": "text", "text": question}]}


def _noise(width: int, height: int, seed: int) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


IMAGES = [[_noise(56, 56, 0)], [_noise(56, 28, 1)]]  # two sizes, for most families two numbers of tokens


def _without_pixels(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in rows.items() if name not in PIXELS}


def _twice(feature: Tensor | list | tuple) -> Any:
    """Features of B samples for the 2B rows [chosen...; rejected...]."""
    return torch.cat([feature, feature]) if isinstance(feature, Tensor) else [*feature, *feature]


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, family_dir: Callable[[str], Path]) -> Case:
    path = family_dir(request.param)
    model = AutoModelForImageTextToText.from_pretrained(path).eval()
    return Case(request.param, model, AutoProcessor.from_pretrained(path))


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def test_a_saved_family_loads_with_its_token_ids(case: Case):
    tokenizer, generation = case.processor.tokenizer, case.model.generation_config
    assert len(tokenizer) == case.model.config.text_config.vocab_size < 450
    assert generation.pad_token_id == tokenizer.pad_token_id
    assert tokenizer.eos_token_id in np.atleast_1d(generation.eos_token_id)
    assert case.model.config.image_token_id == case.processor.image_token_ids[0]


def test_text_comes_back_from_its_tokens(case: Case):
    text = "A caf\u00e9, two cats: 3 cups?\nYes."
    ids = case.processor.tokenizer(text, add_special_tokens=False).input_ids
    assert len(ids) > 10
    assert case.processor.tokenizer.decode(ids) == text


def test_only_llava_leaves_an_answer_without_an_end_token(case: Case):
    """Prompts end turns too, so the count of end tokens has to grow by the answer's own."""
    ends = set(np.atleast_1d(case.model.generation_config.eos_token_id).tolist())

    def count(text: str) -> int:
        return sum(token in ends for token in case.processor.tokenizer(text).input_ids)

    grown = count(case.conversation(QUESTIONS[0], CHOSEN[0])) - count(case.prompt(QUESTIONS[0]))
    assert grown == (0 if case.family == "llava" else 1)


def test_an_answer_renders_behind_its_prompt(case: Case):
    assert case.conversation(QUESTIONS[0], CHOSEN[0]).startswith(case.prompt(QUESTIONS[0]))


def test_only_llama_tokenizers_need_the_prompt_to_tokenise_an_answer(case: Case):
    """The prompt's tokens open the whole row's; the answer alone gets one space too many from Llama's."""
    whole, prompt = case.conversation(QUESTIONS[0], CHOSEN[0]), case.prompt(QUESTIONS[0])
    ids, start, alone = (
        case.processor.tokenizer(text, add_special_tokens=False).input_ids
        for text in (whole, prompt, whole[len(prompt) :])
    )
    assert ids[: len(start)] == start
    assert (ids[len(start) :] == alone) == (case.family not in ("llava", "llava_next"))


def test_logits_are_finite_and_come_from_the_head_on_the_last_hidden_state(case: Case):
    rows = case.encode(IMAGES, [case.prompt(question) for question in QUESTIONS])
    logits = case.model(**rows).logits
    assert torch.isfinite(logits).all()
    assert logits.std() > 0.3
    hidden = case.model.model(**rows).last_hidden_state
    torch.testing.assert_close(case.model.lm_head(hidden), logits)


def test_logits_follow_the_image(case: Case):
    text = [case.prompt(QUESTIONS[0])]
    one, other = (case.model(**case.encode([[_noise(56, 56, seed)]], text)).logits[0, -1] for seed in (0, 5))
    assert (one - other).abs().max() > 1e-2


def test_features_stand_in_for_pixels_with_one_call_of_the_tower(case: Case):
    rows = case.encode(IMAGES, [case.prompt(question) for question in QUESTIONS])
    tower, calls = case.model.get_encoder("image"), []
    assert tower not in (case.model, case.model.model)
    hook = tower.register_forward_hook(lambda *_: calls.append(1))
    try:
        features = case.image_features(rows)
        hidden = case.model.model(**_without_pixels(rows), mm_encoder_outputs={"image": features})
    finally:
        hook.remove()
    assert len(calls) == 1
    plain = case.model.model(**rows)
    torch.testing.assert_close(hidden.last_hidden_state, plain.last_hidden_state, rtol=0, atol=1e-6)


def test_features_repeated_for_both_sides_equal_the_plain_computation(case: Case):
    chosen, rejected = (
        [case.conversation(*pair) for pair in zip(QUESTIONS, answers, strict=True)]
        for answers in (CHOSEN, REJECTED)
    )
    both = case.encode(IMAGES + IMAGES, chosen + rejected)
    plain = case.model(**both).logits

    features = case.image_features(case.encode(IMAGES, chosen))
    features.pooler_output = _twice(features.pooler_output)
    if case.family == "qwen3_vl":
        features.deepstack_features = [_twice(layer) for layer in features.deepstack_features]
    shared = case.model(**_without_pixels(both), mm_encoder_outputs={"image": features}).logits
    torch.testing.assert_close(shared, plain, rtol=0, atol=1e-5)
    assert (plain[:2] - plain[2:]).abs().max() > 1e-1


def test_a_row_without_an_image_stands_beside_a_row_with_one(case: Case):
    texts = [case.prompt(QUESTIONS[0]), case.prompt(QUESTIONS[1], image=False)]
    mixed = case.model(**case.encode([IMAGES[0], []], texts)).logits[1]
    alone = case.model(**case.encode([[]], texts[1:])).logits[0]
    torch.testing.assert_close(mixed[: len(alone)], alone, rtol=0, atol=1e-5)


def test_generation_sees_the_image_and_stops_at_an_end_token(case: Case):
    rows = case.encode(IMAGES[:1], [case.prompt(QUESTIONS[0])])
    start = rows["input_ids"].shape[1]
    free = case.model.generate(**rows, max_new_tokens=5, min_new_tokens=5, do_sample=False)[0, start:]
    first = case.model(**rows).logits[0, -1].clone()
    first[case.model.generation_config.eos_token_id] = -torch.inf  # as min_new_tokens does
    assert free[0] == first.argmax()

    stopped = case.model.generate(**rows, max_new_tokens=5, do_sample=False, eos_token_id=free[2].item())
    assert stopped[0, start:].tolist() == free[: free.tolist().index(free[2]) + 1].tolist()


def test_a_seed_names_the_weights(tmp_path):
    one, same, other = (
        AutoModelForImageTextToText.from_pretrained(build("llava", tmp_path / name, seed)).lm_head.weight
        for name, seed in (("one", 3), ("same", 3), ("other", 4))
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
