"""Which tokens an answer has and which a loss may see, for every family."""

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from rlaifv_pl.data.bad_samples import BadSample
from rlaifv_pl.data.collate import Collator
from rlaifv_pl.models.chat import Chat, Dialogue, prompt_messages, text_message
from rlaifv_pl.models.policy import PolicySpec, load_processor
from rlaifv_pl.models.text_checks import ChatError
from rlaifv_pl.models.tokenization import TokenizedRow
from rlaifv_pl.records import Sample
from tests.data.samples import picture
from tests.families import FAMILIES
from tests.models.plain import PAIRS, STOP, encode, opened, photo, said, user

PHOTO = photo(0)
DIALOGUE = [user("What is this?", 1), said("A red cup."), user("Sure?"), said("Yes, it is.")]
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
IM_TURNS = (
    "{}What is this?<|im_end|>\n<|im_start|>assistant\n",
    "A red cup.<|im_end|>",
    "\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n",
    "Yes, it is.<|im_end|>",
)


def im_turns(opening: str) -> list[str]:
    return [IM_TURNS[0].format(opening), *IM_TURNS[1:]]


def utterances(opening: str) -> list[str]:
    return [
        f"{opening}User:<image>What is this?<end_of_utterance>\nAssistant:",
        " A red cup.<end_of_utterance>",
        "\nUser: Sure?<end_of_utterance>\nAssistant:",
        " Yes, it is.<end_of_utterance>",
    ]


WRITTEN = {
    "llava": [
        "USER: <image>\nWhat is this? ASSISTANT:",
        " A red cup.</s>",
        " USER: Sure? ASSISTANT:",
        " Yes, it is.</s>",
    ],
    "llava_next": [
        "[INST] <image>\nWhat is this? [/INST]",
        " A red cup.</s>",
        " [INST] Sure? [/INST]",
        " Yes, it is.</s>",
    ],
    "qwen2_5_vl": im_turns(SYSTEM + "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>"),
    "qwen3_vl": im_turns("<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>"),
    "gemma3": [
        "<bos><start_of_turn>user\n<start_of_image>What is this?<end_of_turn>\n<start_of_turn>model\n",
        "A red cup.<end_of_turn>",
        "\n<start_of_turn>user\nSure?<end_of_turn>\n<start_of_turn>model\n",
        "Yes, it is.<end_of_turn>",
    ],
    "idefics3": utterances("<|begin_of_text|>"),
    "smolvlm": utterances("<|im_start|>"),
    "internvl": im_turns("<|im_start|>user\n<IMG_CONTEXT>\n"),
}
"""DIALOGUE as each family writes it, cut by hand where a model takes over from its user and back."""


class Case(NamedTuple):
    family: str
    processor: Any
    chat: Chat

    def row(self, messages: list[dict], parts: tuple[int | None, ...], images: list[bytes]) -> TokenizedRow:
        """The row of a dialogue, put together as the collator does."""
        pieces = self.chat.pieces(Dialogue(messages, parts))
        (start,), _ = self.chat.open([pieces[0].text], [opened(images)])
        return self.chat.extend(start, pieces)

    def decoded(self, row: TokenizedRow, part: int) -> str:
        ids = [token for token, own in zip(row.ids, row.parts, strict=True) if own == part]
        return self.processor.tokenizer.decode(ids)


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, family_dir: Callable[[str], Path]) -> Case:
    processor = AutoProcessor.from_pretrained(family_dir(request.param))
    return Case(request.param, processor, Chat(processor))


@pytest.fixture
def chat(family_dir: Callable[[str], Path]) -> Chat:
    return Chat(AutoProcessor.from_pretrained(family_dir("llava")))


def test_a_dialogue_is_cut_where_the_model_takes_over(case: Case):
    pieces = case.chat.pieces(Dialogue(DIALOGUE, (0, 1)))
    assert [piece.text for piece in pieces] == WRITTEN[case.family]
    assert [piece.part for piece in pieces] == [None, 0, None, 1]


def test_targets_are_the_answers_with_their_stop_token(case: Case):
    row = case.row(DIALOGUE, (0, 1), [PHOTO])
    assert case.decoded(row, 0).strip() == "A red cup." + STOP[case.family]
    assert case.decoded(row, 1).strip() == "Yes, it is." + STOP[case.family]
    stop = case.processor.tokenizer.convert_tokens_to_ids(STOP[case.family])
    assert (
        sum(token == stop and part is not None for token, part in zip(row.ids, row.parts, strict=True)) == 2
    )


def test_only_turns_with_a_part_are_targets(case: Case):
    row = case.row(DIALOGUE, (None, 0), [PHOTO])
    assert set(row.parts) == {None, 0}
    assert case.decoded(row, 0).strip() == "Yes, it is." + STOP[case.family]


def test_a_row_equals_the_tokens_of_the_whole_text(case: Case):
    """The whole text is the template's own, except LLaVA's, which has no stop tokens."""
    row = case.row(DIALOGUE, (0, 1), [PHOTO])
    text = "".join(WRITTEN[case.family])
    assert row.ids == encode(case.processor, text, [PHOTO])["input_ids"][0].tolist()
    if case.family != "llava":
        rendered = case.processor.apply_chat_template(DIALOGUE, add_generation_prompt=False, tokenize=False)
        assert rendered.rstrip() == text


def test_the_context_equals_what_generation_feeds(case: Case):
    row = case.row(DIALOGUE, (0, 1), [PHOTO])
    context = row.ids[: row.parts.index(0)]
    fed = case.chat.prompt_tensors([case.chat.render(DIALOGUE[:1], ask=True)], [opened([PHOTO])])
    assert context == fed["input_ids"][0].tolist()
    expected = case.processor(
        text=[WRITTEN[case.family][0]],
        images=[opened([PHOTO])],
        add_special_tokens=case.family not in ("gemma3", "idefics3", "smolvlm"),
        return_tensors="pt",
    )
    assert context == expected["input_ids"][0].tolist()


def test_per_token_inputs_cover_the_row_and_mark_only_images(case: Case):
    """Qwen's and Gemma's token types tell images from text; the others have none."""
    row = case.row(DIALOGUE, (0, 1), [PHOTO])
    assert set(row.extras) == {
        "qwen2_5_vl": {"mm_token_type_ids"}, "qwen3_vl": {"mm_token_type_ids"}, "gemma3": {"token_type_ids"}
    }.get(case.family, set())  # fmt: skip
    for values in row.extras.values():
        assert len(values) == len(row.ids)
        assert sum(values) == sum(token in case.processor.image_token_ids for token in row.ids) > 0


def test_a_sample_without_images_has_no_pixels(case: Case):
    (start,), images = case.chat.open([case.chat.render([user("What?")], ask=True)], [[]])
    assert images == {}
    assert not set(case.processor.image_token_ids) & set(start.ids)


def test_two_images_stand_before_the_text(case: Case):
    """Image tokens of the two together are those of each in a row of its own."""
    two = Sample(key="a", prompt="Which?", images=(photo(0, 56, 56), photo(1)))
    (message,) = prompt_messages(two)
    assert [block["type"] for block in message["content"]] == ["image", "image", "text"]

    def image_tokens(messages: list[dict], images: list[bytes]) -> int:
        (row,), _ = case.chat.open([case.chat.render(messages, ask=True)], [opened(images)])
        return sum(token in case.processor.image_token_ids for token in row.ids)

    alone = [image_tokens([user("Which?", 1)], [image]) for image in two.images]
    assert image_tokens([message], list(two.images)) == sum(alone)


def test_padding_for_generation_stays_out_of_rows(case: Case):
    texts = [case.chat.render([user(text, 1)], ask=True) for text in ("Short?", "A much longer question?")]
    images = [opened([photo(0, 56, 56)]), opened([photo(1)])]
    together, _ = case.chat.open(texts, images)
    for row, text, group in zip(together, texts, images, strict=True):
        (alone,), _ = case.chat.open([text], [group])
        assert row.ids == alone.ids and row.extras == alone.extras


def test_an_image_marker_in_a_text_is_a_bad_sample(case: Case):
    """Gemma has two: what the template writes, and the token that the processor makes of it."""
    written = case.processor.image_token
    read = "<image_soft_token>" if case.family == "gemma3" else written
    for field, text in (
        ("chosen", f"It says {written}."),
        ("chosen", f"It says {read}."),
        ("prompt", f"What does {written} mean?"),
    ):
        fields = {"prompt": "What?", "chosen": "A cup.", "rejected": "No.", field: text}
        sample = Sample(key="x", images=(PHOTO,), **fields)
        with pytest.raises(BadSample, match=rf"sample x: {field}.*<.*image.*\[special_token\]|IMG_CONTEXT"):
            collator(case.chat, "raise")([sample])
        batch = collator(case.chat, "skip")([sample, PAIRS[0]])
        assert batch.keys == ["a"] and batch.accounting.dropped == [("sample x", "special_token")]


def test_images_that_the_processor_refuses_are_named_by_their_sample(case: Case, monkeypatch):
    """One that raises at lines of pixels, as some families' do; the batch goes on without that sample."""
    taken = type(case.chat.processor).__call__

    def strict(self, images=None, **options):
        if any(min(image.size) < 2 for group in images or () for image in group):
            raise ValueError("height and width must be larger than 1")
        return taken(self, images=images, **options)

    monkeypatch.setattr(type(case.chat.processor), "__call__", strict)
    line = Sample(key="x", prompt="?", chosen="a", rejected="b", images=(photo_of(100, 1),))
    with pytest.raises(
        BadSample, match=r"sample x: .*refuses images of 100 x 1 pixels with ValueError: height"
    ):
        collator(case.chat, "raise")([PAIRS[0], line])
    batch = collator(case.chat, "skip")([line, PAIRS[0]])
    assert batch.keys == ["a"] and batch.accounting.dropped == [("sample x", "unfit_image")]


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (1, 3), (200, 1), (1, 200), (3, 100)])
def test_small_and_long_images_are_read_by_every_family(case: Case, size: tuple[int, int]):
    sample = Sample(key="x", prompt="?", chosen="a", rejected="b", images=(photo_of(*size),))
    assert collator(case.chat, "raise")([sample]).keys == ["x"]


def test_samples_that_show_other_rejected_images_share_no_tree(case: Case):
    """Their images and prompts are equal; the dialogues are about the rejected images alone."""

    def dialogues(sample: Sample) -> list[Dialogue]:
        answered = [*prompt_messages(sample), text_message("assistant", sample.rejected)]
        return [Dialogue(answered, (0,), rejected_images=True)]

    samples = [
        replace(PAIRS[0], key=key, rejected_images=(picture("PNG", colour=colour, size=(56, 56)),))
        for key, colour in (("dark", 10), ("light", 240))
    ]
    collate = Collator(case.chat, dialogues, parts=1)
    together, alone = collate(samples), [collate([sample]) for sample in samples]
    assert together.layout.views == [(0, True), (1, True)]
    for name, values in together.tokens.images.items():
        assert torch.equal(values, torch.cat([batch.tokens.images[name] for batch in alone])), name


def photo_of(width: int, height: int) -> bytes:
    return picture("PNG", size=(width, height))


def collator(chat: Chat, on_bad_sample: str) -> Collator:
    def dialogues(sample: Sample) -> list[Dialogue]:
        return [Dialogue([*prompt_messages(sample), text_message("assistant", sample.chosen)], (0,))]

    return Collator(chat, dialogues, parts=1, on_bad_sample=on_bad_sample)


def test_an_image_keeps_the_place_that_its_prompt_gives_it():
    blocks = [{"type": "text", "text": "What is"}, {"type": "image"}, {"type": "text", "text": "this?"}]
    messages = prompt_messages(Sample(key="a", prompt=[{"role": "user", "content": blocks}], images=(PHOTO,)))
    assert [block["type"] for block in messages[0]["content"]] == ["text", "image", "text"]


def test_images_without_a_place_open_the_first_user_turn_behind_a_system_prompt():
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What?"}]
    system, asked = prompt_messages(Sample(key="a", prompt=prompt, images=(PHOTO,)))
    assert [block["type"] for block in system["content"]] == ["text"]
    assert [block["type"] for block in asked["content"]] == ["image", "text"]


@pytest.mark.parametrize("family", ["llava", "llava_next", "gemma3"])
def test_an_answer_is_tokenised_in_its_context(family: str, family_dir: Callable[[str], Path]):
    """Llama's normaliser puts a word-start mark before any text, so alone " Yes" would get two of them."""
    processor = AutoProcessor.from_pretrained(family_dir(family))
    tokenizer = processor.tokenizer
    case = Case(family, processor, Chat(processor))
    row = case.row([user("Sure?", 1), said("Yes.")], (0,), [PHOTO])
    tokens = tokenizer.convert_ids_to_tokens(row.ids[row.parts.index(0) :])
    assert tokens[0] == ("Y" if family == "gemma3" else "\u2581Y")
    if family != "gemma3":
        assert tokenizer.tokenize(" Yes.")[0] == "\u2581"


def test_a_token_over_the_end_of_a_context_is_split_as_generation_splits_it(family_dir):
    """Qwen's words join line ends into one token; generation, which was fed the first, never makes it."""
    processor = AutoProcessor.from_pretrained(family_dir("qwen3_vl"))
    case = Case("qwen3_vl", processor, Chat(processor))
    tokenizer = processor.tokenizer
    tokenizer.add_tokens(["\n\n"])  # stands for the merge that the public vocabulary has
    row = case.row([user("What?", 1), said("\nA cup."), user("Sure?"), said("Yes.")], (0, 0), [PHOTO])
    start = row.parts.index(0)
    assert tokenizer.convert_ids_to_tokens(row.ids[start - 1 : start + 2]) == ["\u010a", "\u010a", "A"]
    assert "\n\n" in tokenizer.convert_ids_to_tokens(tokenizer("assistant\n\nA cup.")["input_ids"])
    assert case.decoded(row, 0) == "\nA cup.<|im_end|>Yes.<|im_end|>"


def test_an_answer_is_written_as_the_template_writes_it(family_dir):
    """Gemma's template trims what is said."""
    case = Case("gemma3", *_with_chat(family_dir("gemma3")))
    row = case.row([user("What?", 1), said("  A cup. \n")], (0,), [PHOTO])
    assert case.decoded(row, 0) == "A cup.<end_of_turn>"


def _with_chat(path: Path) -> tuple[Any, Chat]:
    processor = AutoProcessor.from_pretrained(path)
    return processor, Chat(processor)


def test_a_template_that_rewrites_earlier_turns_is_refused(chat: Chat):
    """As reasoning models do, whose template drops the thoughts of all answers but the last."""
    chat.processor.chat_template = (
        "{% for message in messages %}{{ message['role'] + ': ' }}"
        "{% if message['role'] == 'assistant' and not loop.last %}short{% else %}"
        "{{ message['content'][-1]['text'] }}{% endif %}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    dialogue = [user("What?"), said("A cup."), user("Sure?"), said("Yes.")]
    with pytest.raises(ChatError, match="rewrites earlier turns"):
        chat.pieces(Dialogue(dialogue, (0, 0)))
    assert [piece.text for piece in chat.pieces(Dialogue(dialogue[:2], (0,)))] == [
        "user: What?</s>assistant: ",
        "A cup.</s>",
    ]


def test_a_template_that_leaves_its_own_generation_prompt_is_refused(chat: Chat):
    chat.processor.chat_template = (
        "{% for message in messages %}{{ message['role'] + message['content'][-1]['text'] }}{% endfor %}"
        "{% if add_generation_prompt %}bot: {% endif %}"
    )
    with pytest.raises(ChatError, match="does not continue its own generation prompt"):
        chat.pieces(Dialogue([user("What?"), said("A cup.")], (0,)))


def test_a_template_without_the_answer_is_refused(chat: Chat):
    chat.processor.chat_template = "{% for message in messages %}{{ message['role'] }}{% endfor %}"
    with pytest.raises(ChatError, match="does not write what the assistant says"):
        chat.pieces(Dialogue([user("What?"), said("A cup.")], (0,)))


def test_no_template_is_refused_with_the_remedy_which_helps(family_dir, tmp_path):
    processor = AutoProcessor.from_pretrained(family_dir("llava"))
    template, processor.chat_template = processor.chat_template, None
    with pytest.raises(ChatError, match=r"no chat template.*policy\.chat_template"):
        Chat(processor)
    shutil.copytree(family_dir("llava"), tmp_path / "bare")
    (tmp_path / "bare" / "chat_template.jinja").unlink()
    (tmp_path / "chat.jinja").write_text(template)
    healed = load_processor(
        PolicySpec(path=str(tmp_path / "bare"), chat_template=str(tmp_path / "chat.jinja"))
    )
    assert Chat(healed).render([user("What?")], ask=True) == "USER: What? ASSISTANT:"


def test_a_slow_tokenizer_is_refused(chat: Chat):
    class Slow:
        is_fast = False

    chat.processor.tokenizer = Slow()
    with pytest.raises(ChatError, match="Slow is not a fast tokenizer"):
        Chat(chat.processor)


def test_photos_of_any_mode_become_rgb(chat: Chat):
    buffer = io.BytesIO()
    Image.new("L", (30, 30), 200).save(buffer, "PNG")
    batch = collator(chat, "raise")(
        [Sample(key="g", prompt="What?", images=(buffer.getvalue(),), chosen="A.", rejected="B.")]
    )
    assert batch.tokens.images["pixel_values"].shape == (1, 3, 28, 28)
