"""Conquer: what a labeler VLM answers to yes/no questions, as probabilities of its first token."""

from collections.abc import Sequence

import torch

from rlaifv_pl.data.images import open_image
from rlaifv_pl.models.chat import Chat, about_images
from rlaifv_pl.models.policy import plain_model
from rlaifv_pl.models.vlm import VLM
from rlaifv_pl.records import Sample, Verdict

FORMS = {"yes": ("yes", "Yes", " yes", " Yes"), "no": ("no", "No", " no", " No")}


@torch.inference_mode()
def ask(labeler: VLM, chat: Chat, samples: Sequence[Sample], questions: Sequence[str]) -> list[Verdict]:
    """One verdict for each question about the image of the sample beside it.

    P(yes) is the probability of the first answer token, summed over the ways in which the labeler's
    own tokenizer writes yes; P(no) likewise. They need not add up to one.
    """
    asked = zip(samples, questions, strict=True)
    texts = [
        chat.render([about_images(question, len(sample.images))], ask=True) for sample, question in asked
    ]
    images = [[open_image(data, f"sample {sample.key}") for data in sample.images] for sample in samples]
    model = plain_model(labeler.model).eval()
    inputs = chat.prompt_tensors(texts, images).to(model.device)
    share = model(**inputs, logits_to_keep=1).logits[:, -1].float().softmax(-1)
    yes, no = (share[:, first_tokens(chat, answer)].sum(-1).tolist() for answer in ("yes", "no"))
    return [Verdict(yes=p_yes, no=p_no) for p_yes, p_no in zip(yes, no, strict=True)]


def first_tokens(chat: Chat, answer: str) -> list[int]:
    """Ids with which an answer of `yes` or `no` can begin in the labeler's vocabulary.

    Raises:
        ValueError: yes and no begin alike, so that the first token does not tell them apart.
    """
    own, other = (
        _firsts(chat, forms) for forms in (FORMS[answer], FORMS["no" if answer == "yes" else "yes"])
    )
    if own & other or not own:
        raise ValueError(f"the labeler's tokenizer begins yes and no with the same token ({own & other})")
    return sorted(own)


def _firsts(chat: Chat, forms: Sequence[str]) -> set[int]:
    ids = (chat.tokenizer(form, add_special_tokens=False)["input_ids"] for form in forms)
    return {first for first, *_ in ids} - {chat.tokenizer.unk_token_id}
