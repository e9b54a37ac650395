"""One prefix, many continuations: equal to reading each text with its image by itself, in every family."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from rlaifv_pl.data.bad_samples import BadSample
from rlaifv_pl.data.images import open_image
from rlaifv_pl.feedback.candidates.sampling import sample_candidates
from rlaifv_pl.feedback.engines import in_memory, shared_prefix
from rlaifv_pl.feedback.engines.engine import EngineError, Request, Sampling
from rlaifv_pl.feedback.engines.in_memory import InMemoryEngine
from rlaifv_pl.feedback.engines.question_trees import ImageQuestions, fork
from rlaifv_pl.models.chat import Chat, message_with_images
from rlaifv_pl.models.policy import PolicySpec, load_model, load_processor, vision_tower
from rlaifv_pl.models.prefix_tree import Forest
from rlaifv_pl.models.vlm import VLM
from rlaifv_pl.records import Sample
from tests.families import FAMILIES

QUESTIONS = (
    "is there a cat?",
    "is there a red circle left of the blue square?",
    "two?",
    "is there a cat left of it?",
)


def picture(seed: int, size: int = 40) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size + 8 * seed, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def engine(family: str, family_dir, batch_size: int = 64) -> InMemoryEngine:
    spec = PolicySpec(path=str(family_dir(family)))
    return InMemoryEngine(VLM(load_model(spec)), Chat(load_processor(spec)), batch_size)


def requests() -> list[Request]:
    """Four questions about one picture, two about another, one without any."""
    first, second = picture(0), picture(1)
    asked = [Request(text, (first,)) for text in QUESTIONS] + [
        Request(text, (second,)) for text in QUESTIONS[:2]
    ]
    return [*asked, Request(QUESTIONS[0])]


@torch.no_grad()
def alone(asked: InMemoryEngine, request: Request, words: list[list[int]]) -> list[float]:
    """The plain way: one text, its image, one forward, the last position's softmax."""
    text = asked.chat.render([message_with_images(request.text, len(request.images))], ask=True)
    images = [open_image(data, "") for data in request.images]
    share = asked.model.model.eval()(**asked.chat.prompt_tensors([text], [images])).logits[0, -1].softmax(-1)
    return [share[ids].sum().item() for ids in words]


@pytest.mark.parametrize("batch_size", [64, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_questions_that_share_an_image_get_the_answers_of_each_alone(family, family_dir, batch_size, capsys):
    asked = engine(family, family_dir, batch_size)
    found = asked.choose(requests(), ("yes", "no"))
    again = asked.choose(requests(), ("yes", "no"))
    expected = [alone(asked, request, asked._word_tokens(("yes", "no"))) for request in requests()]
    assert torch.allclose(torch.tensor(found), torch.tensor(expected), atol=1e-5)
    assert torch.allclose(torch.tensor(again), torch.tensor(expected), atol=1e-5)
    assert asked._faithful["questions"] and "again" not in capsys.readouterr().err


@pytest.mark.parametrize("family", FAMILIES)
def test_candidates_that_share_a_prompt_are_those_drawn_from_the_whole_text(family, family_dir):
    asked = engine(family, family_dir)
    prompts = [Sample(key=f"p{n}", prompt=text, images=(picture(n),)) for n, text in enumerate(QUESTIONS[:2])]
    sampling = Sampling(n=3, temperature=1.0, max_new_tokens=8)
    shared = sample_candidates(asked, prompts, sampling, seed=0)
    assert asked._faithful["candidates"]
    plain = engine(family, family_dir)
    plain.shares_prefix = False
    assert sample_candidates(plain, prompts, sampling, seed=0) == shared
    assert len({one.text for drawn in shared for one in drawn}) == 6


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_an_image_is_encoded_once_for_all_its_questions_and_all_its_candidates(family, family_dir):
    asked = engine(family, family_dir)
    asked.choose(requests()[:2], ("yes", "no"))  # The first time the plain way is taken as well.
    prompt = [Sample(key="p", prompt=QUESTIONS[0], images=(picture(0),))]
    sampling = Sampling(n=5, temperature=1.0, max_new_tokens=3)
    sample_candidates(asked, prompt, sampling, seed=0)
    seen = []
    vision_tower(asked.model.model).register_forward_hook(lambda *_: seen.append(1))
    asked.choose(requests()[:4], ("yes", "no"))
    assert len(seen) == 1
    sample_candidates(asked, prompt, sampling, seed=0)
    assert len(seen) == 2


def test_a_model_that_does_not_share_faithfully_is_noticed_and_read_the_plain_way(
    family_dir, monkeypatch, capsys
):
    """Questions with masks that let all see all; candidates with a cache whose keys are turned around."""
    monkeypatch.setattr(Forest, "sees", lambda _self, line, query, key, mask=None: (query >= 0) & (key >= 0))
    asked = engine("llava", family_dir)
    asked.model.attention = "dense"
    found = asked.choose(requests(), ("yes", "no"))
    expected = [alone(asked, request, asked._word_tokens(("yes", "no"))) for request in requests()]
    assert torch.allclose(torch.tensor(found), torch.tensor(expected), atol=1e-5)
    assert not asked._faithful["questions"] and "reads the image again" in capsys.readouterr().err

    honest = in_memory.expand_cache

    def forgetful(model, inputs, copies):
        handed = honest(model, inputs, copies)
        for layer in handed["cache" if "cache" in handed else "past_key_values"].layers:
            layer.keys = layer.keys.flip(2)
        return handed

    monkeypatch.setattr(shared_prefix, "expand_cache", forgetful)
    monkeypatch.setattr(in_memory, "expand_cache", forgetful)
    prompt = [Sample(key="p", prompt=QUESTIONS[0], images=(picture(0),))]
    sampling = Sampling(n=3, temperature=1.0, max_new_tokens=5)
    drawn = sample_candidates(asked, prompt, sampling, seed=0)
    plain = engine("llava", family_dir)
    plain.shares_prefix = False
    assert drawn == sample_candidates(plain, prompt, sampling, seed=0)
    assert not asked._faithful["candidates"] and "reads the image again" in capsys.readouterr().err


def test_images_that_the_processor_refuses_are_named_by_what_a_question_is_about(family_dir, monkeypatch):
    asked = engine("llava", family_dir)
    taken = type(asked.chat.processor).__call__

    def strict(self, images=None, **options):
        if any(image.width == 48 for group in images or () for image in group):
            raise ValueError("too wide")
        return taken(self, images=images, **options)

    monkeypatch.setattr(type(asked.chat.processor), "__call__", strict)
    about = [Request(text, (picture(seed),), f"sample {seed}") for seed in (0, 1) for text in QUESTIONS[:2]]
    assert len(asked.choose(about[:2], ("yes", "no"))) == 2
    with pytest.raises(BadSample, match=r"^sample 1: .*refuses images of 48 x 40 .*too wide.*unfit_image"):
        asked.choose(about, ("yes", "no"))
    prompts = [Sample(key=str(seed), prompt="?", images=(picture(seed),)) for seed in (0, 1)]
    with pytest.raises(BadSample, match=r"^sample 1: .*too wide"):
        asked.sample(prompts, [[0], [0]], Sampling(n=1, max_new_tokens=1))


def test_a_question_that_the_template_refuses_is_named_by_what_it_is_about(family_dir):
    asked = engine("llava", family_dir)
    asked.choose([Request("?", (), "sample 6")], ("yes", "no"))
    asked.chat.processor.chat_template = "{{ raise_exception('no') }}" + asked.chat.processor.chat_template
    with pytest.raises(BadSample, match=r"^sample 7: .*refuses.*not_rendered"):
        asked.choose([Request("?", (), "sample 7")], ("yes", "no"))


def test_texts_part_behind_their_images_and_before_their_last_token(family_dir):
    chat = engine("llava", family_dir).chat
    images = [open_image(picture(0), "")]
    texts = [chat.render([message_with_images(text, 1)], ask=True) for text in QUESTIONS]
    (parted,) = fork(chat, ImageQuestions(images, texts, "it"))
    assert chat.processor.image_token in parted.prefix and all(parted.suffixes)
    whole = [chat.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    begun = chat.tokenizer(parted.prefix, add_special_tokens=False)["input_ids"]
    assert [begun + suffix for suffix in parted.suffixes] == whole
    (single,) = fork(chat, ImageQuestions(images, texts[:1], "it"))
    assert [len(suffix) for suffix in single.suffixes] == [1]
    (twin,) = fork(chat, ImageQuestions(images, [texts[0], texts[0]], "it"))
    assert [len(suffix) for suffix in twin.suffixes] == [1, 1]
    mark = chat.processor.image_token
    late = [f"{question} {mark} so?" for question in QUESTIONS[:2]]
    assert [len(one.suffixes) for one in fork(chat, ImageQuestions(images, late, "it"))] == [1, 1]
    with pytest.raises(EngineError, match="at the end"):
        fork(chat, ImageQuestions(images, [f"what is it? {mark}"], "it"))
