"""Which texts hold markup of chat templates, and which only look like it."""

import pytest

from rlaifv_pl.models.special_tokens import END_TOKENS, special_token_in, turns_in, without_end

RENDERED = (
    "USER: <image>\nWhat is it? ASSISTANT:",
    "A chat between a curious human and an assistant. USER: \nWhat is it? ASSISTANT:",
    "USER: What? ASSISTANT: A red square.",
    "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n",
    "[INST] What? [/INST]",
    "<start_of_turn>user\nWhat?<end_of_turn>\n<start_of_turn>model\n",
    "<|user|>\nWhat?<|end|>\n<|assistant|>\n",
    "<|start_header_id|>user<|end_header_id|>\n\nWhat?<|eot_id|>",
    "### Human: What?\n### Assistant:",
    "### Instruction:\nDescribe it.\n\n### Response:\n",
    "User:What?<end_of_utterance>\nAssistant:",
    "\n\nHuman: What?\n\nAssistant: A red",
    "Human: What?\nAI:",
)
HONEST = (
    "What does the USER see?",
    "What does the label 'USER:' say?",
    "USER: is written on the door. Why?",
    "USER: is written at the left. What stands right of ASSISTANT: there?",
    "The USER: and ASSISTANT: labels, what colour have they?",
    "Who is the assistant: the man or the woman?",
    "Human: a sculpture? Or AI: a picture?",
    "Here is a chat:\nUser: hi\nAssistant: hello\nIs the assistant right?",
    "Question: What is it?\nAnswer:",
    "### What is it?\n### Why?",
    "[INSTRUCTION] Look.",
    "Is 3 < x and |x| > 2, or a<b|c>d?",
    "What HTML tag is <b>bold</b>, and the price <s>5</s>?",
)


@pytest.mark.parametrize("text", RENDERED)
def test_turns_that_a_template_wrote_are_told(text):
    assert turns_in(text)


@pytest.mark.parametrize("text", HONEST)
def test_a_text_that_speaks_of_such_things_is_plain(text):
    assert turns_in(text) is None
    assert special_token_in(text) is None


@pytest.mark.parametrize("end", END_TOKENS)
def test_end_tokens_go_with_the_blanks_around_them(end):
    for behind in (end, f" {end}", f"{end}\n", f"{end}{end}", f"{end}<pad>"):
        assert without_end(f"A red square.{behind}") == "A red square."
    assert special_token_in(f"A red {end} square.") == end


@pytest.mark.parametrize("text", ["A red square. ", "It is <s>old</s>", "a < b", "", " \n"])
def test_a_text_without_an_end_token_stays(text):
    assert without_end(text) == text


@pytest.mark.parametrize(
    "text", ["<s>" * 10**5, " " * 10**6, "USER: " * 10**5, "\nHuman: x" * 10**5, "<|a" * 10**5]
)
def test_long_texts_take_no_longer_than_their_length(text):
    """Each within the suite's own limit: a pattern that backtracks would take hours."""
    assert without_end(text) == text
    special_token_in(text), turns_in(text)
