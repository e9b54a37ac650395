"""Dialogues whose later turns show images behind answers that are learned, against plain rows."""

from pathlib import Path

import pytest
import torch

from rlaifv_pl.data.collate import Collator
from rlaifv_pl.models.chat import Chat, Dialogue, prompt_messages, text_message
from rlaifv_pl.models.policy import PolicySpec, load_model, load_processor
from rlaifv_pl.models.self_check import tree_error
from rlaifv_pl.models.vlm import VLM
from rlaifv_pl.records import Sample
from tests.families import FAMILIES
from tests.models.plain import STOP, encode, keep_wide, photo, said, user

IMAGES = (photo(0, 56, 56), photo(1), photo(2))
PROMPT = [
    user("Who is it?", 1),
    said("A man."),
    {
        "role": "user",
        "content": [{"type": "text", "text": "And "}, {"type": "image"}, {"type": "text", "text": "?"}],
    },
    said("A woman with a dog."),
    user("Which is this?", 1),
]
LATE = Sample(key="late", prompt=PROMPT, images=IMAGES, completion="Both.")
EARLY = Sample(key="early", prompt="What is it?", images=IMAGES[:1], completion="A cup.")
SAME_BEGINNING = Sample(key="same", prompt=PROMPT, images=IMAGES, completion="Neither of them.")


def every_answer(sample: Sample) -> list[Dialogue]:
    messages = [*prompt_messages(sample), text_message("assistant", sample.completion)]
    answers = sum(message["role"] == "assistant" for message in messages)
    return [Dialogue(messages, (0,) * answers)]


def plain_logps(model, processor, texts: list[str], images: tuple[bytes, ...]) -> torch.Tensor:
    """Log-ps of the answers' tokens, in one row of the whole text."""

    def row(text: str) -> dict[str, torch.Tensor]:
        return encode(processor, text, images[: text.count(processor.image_token)])

    whole = row("".join(texts))
    ids = whole["input_ids"][0]
    wide = {name: value.double() if value.is_floating_point() else value for name, value in whole.items()}
    logps = model(**wide).logits[0, :-1].log_softmax(-1)[torch.arange(len(ids) - 1), ids[1:]]
    ends = [row("".join(texts[:n]))["input_ids"].shape[1] for n in range(1, len(texts) + 1)]
    return torch.cat([logps[start - 1 : end - 1] for start, end in zip(ends[::2], ends[1::2], strict=True)])


@pytest.fixture(params=FAMILIES)
def case(request: pytest.FixtureRequest, family_dir) -> tuple[Path, Chat]:
    path = family_dir(request.param)
    return path, Chat(load_processor(PolicySpec(path=str(path))))


def written(chat: Chat, sample: Sample) -> list[str]:
    """Context, answer, context, answer ... as the template writes them."""
    (dialogue,) = every_answer(sample)
    return [piece.text for piece in chat.pieces(dialogue)]


def test_a_row_is_that_of_the_whole_text(case):
    _, chat = case
    batch = Collator(chat, every_answer, parts=1)([LATE])
    whole = encode(chat.processor, "".join(written(chat, LATE)), IMAGES)
    for name, values in batch.tokens.rows.items():
        assert values.tolist() == whole[name].tolist(), name
    for name, values in batch.tokens.images.items():
        assert torch.equal(values, whole[name])


def test_each_answer_is_a_target_with_its_stop_token(case, request):
    _, chat = case
    batch = Collator(chat, every_answer, parts=1)([LATE])
    stop = STOP[request.node.callspec.params["case"]]
    said = chat.tokenizer.decode(batch.tokens.labels).replace(" ", "")
    assert said == "".join(f"{text}{stop}" for text in ("Aman.", "Awomanwithadog.", "Both."))
    assert not set(batch.tokens.labels.tolist()) & set(chat.processor.image_token_ids)


def test_log_ps_are_those_of_plain_rows(case):
    """Beside a dialogue with one image, and another one that differs in its last answer alone."""
    path, chat = case
    model = keep_wide(load_model(PolicySpec(path=str(path))).double().eval())
    policy = VLM(model, "auto")
    batch = Collator(chat, every_answer, parts=1)([LATE, EARLY, SAME_BEGINNING])
    batch.tokens.images = {
        name: value.double() if value.is_floating_point() else value
        for name, value in batch.tokens.images.items()
    }
    off, limit = tree_error(policy, batch)
    assert off <= limit
    logps = policy(batch)
    for number, sample in enumerate((LATE, EARLY, SAME_BEGINNING)):
        expected = plain_logps(model, chat.processor, written(chat, sample), sample.images)
        found = logps[batch.tokens.sequence_id == number]
        assert torch.allclose(found, expected, atol=1e-9), sample.key
