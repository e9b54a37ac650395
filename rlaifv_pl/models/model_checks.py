"""Checks of a loaded config, weights and processor; each fault is one sentence with its cure."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlaifv_pl.models.chat import Chat, ChatError, Dialogue, message_with_images, text_message
from rlaifv_pl.models.errors import PolicyError, cannot_load
from rlaifv_pl.models.tokenization import Processor

MAX_NAMES = 5
"""Number of names that a message lists."""
DERIVED = ("inv_freq", "position_ids", "num_batches_tracked")
"""Suffixes of buffers that models compute themselves and older files contain."""
PROBE_SIZE = (96, 64)
"""Width and height of the image on which a model and its processor are tried."""


def check_config(path: str, config: PreTrainedConfig, *, trust_remote_code: bool) -> None:
    """Check that a config is of a vision-language model.

    Raises:
        PolicyError: it is of another kind of model, such as a plain language model.
    """
    own = getattr(config, "auto_map", None) or {}
    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING or (
        trust_remote_code and "AutoModelForImageTextToText" in own
    ):
        return
    named = ", ".join(getattr(config, "architectures", None) or ["no architecture"])
    raise cannot_load(
        path,
        f"config.json is of model_type {config.model_type!r} ({named}), which does not read images",
        "Name a vision-language model, one that AutoModelForImageTextToText loads.",
    )


def check_trainable(path: str, config: PreTrainedConfig) -> None:
    """Check that the weights can be trained.

    Raises:
        PolicyError: they are quantised.
    """
    quantised = getattr(config, "quantization_config", None)
    if quantised is None:
        return
    how = quantised.get("quant_method") if isinstance(quantised, Mapping) else quantised.quant_method
    raise cannot_load(
        path,
        f"its weights are quantised by {getattr(how, 'value', how)} (quantization_config in config.json) and cannot "
        "be trained",
        "Name the model that it was quantised from; policy.dtype: bfloat16 halves its memory.",
    )


def check_weights(path: str, info: Mapping[str, Any]) -> None:
    """Check that the files had all weights of the model and no others.

    Args:
        path: of the model.
        info: loading info of `from_pretrained`.

    Raises:
        PolicyError: weights are missing, of another shape or left over.
    """
    if missing := sorted(info["missing_keys"]):
        raise cannot_load(
            path,
            f"its files lack {_join_names(missing)}, and random numbers would stand there",
            "Take a complete copy of the model; a part that was saved by itself has to be merged into it first.",
        )
    if wrong := sorted(info["mismatched_keys"], key=str):
        name, found, expected = wrong[0]
        raise cannot_load(
            path,
            f"{name} has the shape {tuple(found)}, and config.json makes it {tuple(expected)} ({len(wrong)} such)",
            "Take config.json and weights of the same model.",
        )
    left = sorted(name for name in info["unexpected_keys"] if not name.endswith(DERIVED))
    if left:
        raise cannot_load(
            path,
            f"its files hold {_join_names(left)}, for which the model that config.json names has no place",
            "Take config.json and weights of the same model; adapters have to be merged first.",
        )


def complete_processor(processor: Any, config: PreTrainedConfig) -> None:
    """Fill in settings that older processors lack from the model's config and the tokenizer.

    The chat template may be the tokenizer's; any token may pad, since padding is masked; and processors of the LLaVA
    family that were saved without a patch size take the vision tower's.
    """
    tokenizer, text = getattr(processor, "tokenizer", None), config.get_text_config()
    if tokenizer is None:
        return
    if getattr(processor, "chat_template", None) is None:
        processor.chat_template = getattr(tokenizer, "chat_template", None)
    if tokenizer.eos_token is None:
        tokenizer.eos_token = _token(tokenizer, text.eos_token_id)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = _token(tokenizer, text.pad_token_id) or tokenizer.eos_token
    vision = getattr(config, "vision_config", None)
    if vision is None or getattr(processor, "patch_size", 0) is not None:
        return
    if isinstance(size := getattr(vision, "patch_size", None), int):
        processor.patch_size = size
        if processor.vision_feature_select_strategy is None:
            processor.vision_feature_select_strategy = config.vision_feature_select_strategy
            # CLIP puts a token of its own before those of the patches.
            processor.num_additional_image_tokens = int(vision.model_type == "clip_vision_model")


def _token(tokenizer: PreTrainedTokenizerBase, number: object) -> str | None:
    """Return the token of an id, or of the first of several; None where there is none."""
    number = number[0] if isinstance(number, list) and number else number
    if isinstance(number, int) and 0 <= number < len(tokenizer):
        return tokenizer.convert_ids_to_tokens([number])[0]
    return None


def check_processor(path: str, processor: Processor, config: PreTrainedConfig) -> None:
    """Check that processor, tokenizer and chat template are complete and agree with the model's config.

    Raises:
        PolicyError: one of them is incomplete or disagrees.
    """
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise cannot_load(
            path,
            f"AutoProcessor gives a {type(processor).__name__}, which does not prepare images",
            "Copy the processor's files (processor_config.json or preprocessor_config.json) from the base model.",
        )
    _check_tokenizer(path, processor, config)
    if getattr(processor, "patch_size", 0) is None:
        raise cannot_load(
            path,
            f"{type(processor).__name__} has no patch_size, and the vision tower in config.json does not say it either",
            'Write "patch_size" into processor_config.json: the model\'s pixels along an edge of a patch.',
        )
    _check_template(path, processor)


def _check_tokenizer(path: str, processor: Processor, config: PreTrainedConfig) -> None:
    tokenizer, rows = processor.tokenizer, config.get_text_config().vocab_size
    if beyond := sorted(token for token, number in tokenizer.get_vocab().items() if number >= rows):
        raise cannot_load(
            path,
            f"its tokenizer has {_join_names(beyond, 'token')} beyond the {rows} rows of the embedding matrix",
            "Take tokenizer and weights of the same model, or enlarge the model by `resize_token_embeddings`.",
        )
    if tokenizer.eos_token is None:
        raise cannot_load(
            path,
            "neither its tokenizer nor its config.json names the token that ends an answer (eos_token)",
            'Write "eos_token" into tokenizer_config.json: the token behind each answer of the model.',
        )
    expected = _image_token(config)
    found = list(processor.image_token_ids)
    if expected is not None and expected not in found:
        raise cannot_load(
            path,
            f"config.json says that token {expected} stands for an image, and the processor writes token {found[0]} "
            f"({tokenizer.convert_ids_to_tokens(found[0])!r})",
            "Take processor and config.json of the same model, or correct image_token_index (image_token_id) there.",
        )


def _image_token(config: PreTrainedConfig) -> int | None:
    """Return the token that stands for an image feature, if the config says it."""
    named = (getattr(config, name, None) for name in ("image_token_id", "image_token_index"))
    return next((number for number in named if number is not None), None)


def _check_template(path: str, processor: Processor) -> None:
    if getattr(processor, "chat_template", None) is None:
        raise cannot_load(
            path,
            "neither its processor nor its tokenizer has a chat template, so there is no telling how it expects a "
            "dialogue",
            "Give one by chat_template (policy.chat_template), the path of a Jinja file.",
        )
    asked = [message_with_images("a", 1), text_message("assistant", "b")]
    try:
        Chat(processor).pieces(Dialogue(asked, (0,)))
    except (ChatError, PolicyError) as error:
        raise cannot_load(
            path, f"its chat template cannot be used: {str(error).rstrip('.')}", _TEMPLATE
        ) from error
    except Exception as error:  # A template is a program, which may raise anything.
        reason = f"{type(error).__name__}: {_first_line(error)}"
        fault = f"its chat template does not render a question about an image ({reason})"
        raise cannot_load(path, fault, _TEMPLATE) from error


_TEMPLATE = "Correct chat_template.jinja, or give another file by chat_template (policy.chat_template)."


@torch.no_grad()
def check_image_tokens(path: str, model: PreTrainedModel, processor: Processor) -> bool:
    """Compare the image tokens that the processor writes with the features that the model makes of an image.

    Args:
        path: of the model.
        model: of transformers; one on the `meta` device costs nothing.
        processor: that goes with it.

    Returns:
        whether they could be compared: not every model runs on the `meta` device.

    Raises:
        PolicyError: their numbers differ, so that no forward pass would work.
    """
    chat = Chat(processor)
    asked = chat.render([message_with_images("a", 1)], ask=False)
    (row,), images = chat.open([asked], [[Image.new("RGB", PROBE_SIZE, (127, 127, 127))]])
    # A family's processor may count what stands around an image among its tokens.
    own = _image_token(model.config)
    tokens = sum(token in ([own] if own is not None else processor.image_token_ids) for token in row.ids)
    num_features = _count_features(model, images)
    if num_features is None:
        return False
    if num_features != tokens:
        raise cannot_load(
            path,
            f"its processor writes {tokens} tokens for an image of which the model makes {num_features} features",
            "Take processor and config.json of the same model; in LLaVA's family, patch_size, "
            "num_additional_image_tokens and vision_feature_select_strategy must be those of the vision tower.",
        )
    return True


def _count_features(model: Any, images: Mapping[str, Tensor]) -> int | None:
    """Return the number of image features, or None where the model's code asks for values that it does not have."""
    weight = next(model.parameters())
    # Sizes of images are numbers that the code reads; only pixels may be without values.
    inputs = {
        name: value.to(weight.device, weight.dtype)
        if value.is_floating_point()
        else value.to(weight.device)
        if not weight.is_meta
        else value
        for name, value in images.items()
    }
    try:
        features = model.get_image_features(**inputs, return_dict=True).pooler_output
    except Exception as error:  # Of any family's own code.
        if weight.is_meta:
            return None
        fault = f"it cannot encode an image ({type(error).__name__}: {_first_line(error)})"
        raise cannot_load(
            model.name_or_path, fault, "Take processor and config.json of the same model."
        ) from error
    return sum(part.shape[:-1].numel() for part in ([features] if isinstance(features, Tensor) else features))


def _join_names(names: Sequence[str], what: str = "weight") -> str:
    joined = ", ".join(names[:MAX_NAMES]) + (" ..." if len(names) > MAX_NAMES else "")
    return f"{len(names)} {what}{'' if len(names) == 1 else 's'} ({joined})"


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "")[:200]


def max_positions(config: PreTrainedConfig) -> int | None:
    """Return how many tokens a row may have, or None where the config does not say (`max_position_embeddings`)."""
    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    rope = getattr(text, "rope_parameters", None) or {}
    if positions is None or "original_max_position_embeddings" in rope:
        return positions
    return int(positions * (rope.get("factor") or 1.0))
