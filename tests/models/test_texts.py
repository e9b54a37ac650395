"""Texts with tokens of their own: one end token behind an answer, and special tokens refused by name."""

import pytest

from rlaifv_pl.data.bad_samples import BadSample, Reason
from rlaifv_pl.data.collate import Collator
from rlaifv_pl.models.chat import Chat, Dialogue, prompt_messages, text_message
from rlaifv_pl.models.policy import PolicySpec, load_processor
from rlaifv_pl.models.text_checks import ChatError
from rlaifv_pl.records import Sample
from tests.families import FAMILIES
from tests.models.plain import STOP, photo, said, user


@pytest.fixture(params=FAMILIES)
def chat(request: pytest.FixtureRequest, family_dir) -> Chat:
    chat = Chat(load_processor(PolicySpec(path=str(family_dir(request.param)))))
    chat.family = request.param
    return chat


def collator(chat: Chat, on_bad_sample: str = "raise") -> Collator:
    def dialogues(sample: Sample) -> list[Dialogue]:
        messages = [*prompt_messages(sample), text_message("assistant", sample.completion)]
        return [Dialogue(messages, (0,) * sum(message["role"] == "assistant" for message in messages))]

    return Collator(chat, dialogues, parts=1, on_bad_sample=on_bad_sample)


def sample(key: str = "x", **changes) -> Sample:
    return Sample(
        **{"key": key, "prompt": "What is it?", "images": (photo(0),), "completion": "A cup."} | changes
    )


@pytest.mark.parametrize("behind", ["{}", " {}", "{}\n", "{}{}"])
def test_an_answer_with_its_end_token_has_one_among_the_targets(chat: Chat, behind: str):
    """Earlier answers, too; and the targets are those of the plain words."""
    stop = STOP[chat.family]
    ended = behind.format(stop, stop)
    prompt = [user("What is it?", 1), said("A dog." + ended), user("Sure?")]
    plain = [user("What is it?", 1), said("A dog."), user("Sure?")]
    batch = collator(chat)([sample(prompt=prompt, completion="A cup." + ended)])
    expected = collator(chat)([sample(prompt=plain)])
    assert batch.tokens.labels.tolist() == expected.tokens.labels.tolist()
    assert batch.tokens.labels.tolist().count(chat.tokenizer.convert_tokens_to_ids(stop)) == 2


def test_the_end_token_of_another_family_goes_too(chat: Chat):
    for other in ("</s>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<end_of_utterance>"):
        batch = collator(chat)([sample(completion=f"A cup.{other}")])
        assert chat.tokenizer.decode(batch.tokens.labels).strip() == "A cup." + STOP[chat.family]


def special_tokens(chat: Chat) -> list[str]:
    return [str(token) for token in chat.tokenizer.added_tokens_decoder.values() if token.special]


def test_every_special_token_of_a_model_is_refused_in_every_text(chat: Chat):
    for token in special_tokens(chat):
        text = f"A {token} cup."
        for bad in (
            sample(completion=text),
            sample(prompt=text),
            sample(prompt=[{"role": "system", "content": text}, user("What?", 1)]),
            sample(prompt=[user("What?", 1), said(text), user("Sure?")]),
        ):
            with pytest.raises(BadSample) as raised:
                collator(chat)([bad])
            assert raised.value.reason in (Reason.SPECIAL_TOKEN, Reason.RENDERED_PROMPT)
            assert token in raised.value.detail or raised.value.detail.count("<")
        batch = collator(chat, "skip")([sample(completion=text), sample("good")])
        assert batch.keys == ["good"]
        assert batch.accounting.dropped[0][1] in ("special_token", "rendered_prompt")


def test_a_token_that_only_this_model_has_is_refused(chat: Chat):
    chat.tokenizer.add_special_tokens({"additional_special_tokens": ["~own~"]})
    with pytest.raises(
        BadSample, match=r"sample x: .*'~own~', a special token of this model.*\[special_token\]"
    ):
        collator(chat)([sample(completion="A ~own~ cup.")])


def test_a_prompt_that_its_own_template_has_rendered_is_refused(chat: Chat):
    text = chat.render([user("What is it?")], ask=True)
    with pytest.raises(BadSample, match=r"\[rendered_prompt\]"):
        collator(chat)([sample(prompt=text)])


def test_a_template_of_unknown_roles_knows_its_own_turns(chat: Chat):
    chat.processor.chat_template = (
        "{% for m in messages %}{{ 'Frage= ' if m['role'] == 'user' else 'Antwort= ' }}"
        "{% for b in m['content'] %}{% if b['type'] == 'text' %}{{ b['text'] }}{% endif %}{% endfor %}\n{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Antwort= ' }}{% endif %}"
    )
    with pytest.raises(BadSample, match=r"'Frage=' to 'Antwort='.*\[rendered_prompt\]"):
        collator(chat)([sample(prompt="Frage= What is it?\nAntwort= ", images=())])
    assert collator(chat)([sample(prompt="What does Frage= mean?", images=())]).keys == ["x"]


def test_turns_that_a_template_refuses_are_named(chat: Chat):
    """Gemma's wants user and assistant in turn; the others write what they get."""
    twice = sample("twice", prompt=[user("What?", 1), user("Be brief.")])
    if chat.family != "gemma3":
        assert collator(chat)([twice]).keys == ["twice"]
        return
    with pytest.raises(BadSample, match=r"sample twice: .*must alternate.*\[not_rendered\]"):
        collator(chat)([twice])
    batch = collator(chat, "skip")([twice, sample("good")])
    assert batch.keys == ["good"] and batch.accounting.dropped == [("sample twice", "not_rendered")]


def test_words_that_a_template_leaves_out_are_told(chat: Chat):
    chat.processor.chat_template = (
        "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['role'] + m['content'][-1]['text'] }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}assistant{% endif %}"
    )
    with pytest.raises(ChatError, match=r"leaves out what the system says: 'Be brief\.'"):
        chat.render([text_message("system", "Be brief."), text_message("user", "What?")], ask=True)
