"""Names under which vLLM looks for weights and adapters of each family: what it does not find, it may serve without.

Written against vLLM 0.33. An adapter whose names lead nowhere is loaded there without a word, and the base answers.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

ADAPTER_PREFIX = "base_model.model."
_IN_LAYER = re.compile(
    r"layers\.(\d+)\.(?:self_attn\.(?:q|k|v|o)_proj|mlp\.(?:gate|up|down)_proj)"
    r"\.lora_[AB]\.weight"
)


@dataclass(frozen=True)
class Served:
    """Names of one family.

    Args:
        renamed: prefixes that are replaced, one rule after the other, each once.
        decoder: where its language model's layers are, after that.
        others: prefixes of all else that has a place, after that.
        tower: where its vision tower is, after that; towers of some kinds lie one module deeper.
    """

    renamed: Mapping[str, str]
    decoder: str
    others: tuple[str, ...]
    tower: str

    def rename(self, name: str) -> str:
        """The name of a weight as vLLM has it."""
        for prefix, other in self.renamed.items():
            if name.startswith(prefix):
                name = other + name.removeprefix(prefix)
        return name


_LANGUAGE = {"model.language_model.": "language_model.model.", "lm_head.": "language_model.lm_head."}
_TOWER = {
    "model.vision_tower.": "vision_tower.",
    "model.multi_modal_projector.": "multi_modal_projector.",
}
_DECODER = "language_model.model."
_HEAD = "language_model.lm_head."

_LLAVA = Served({**_LANGUAGE, **_TOWER}, _DECODER, (_HEAD, "multi_modal_projector."), "vision_tower.")
_LLAVA_NEXT = Served(
    {**_LANGUAGE, **_TOWER, "model.image_newline": "image_newline"},
    _DECODER,
    (_HEAD, "multi_modal_projector.", "image_newline"),
    "vision_tower.",
)
_QWEN2 = Served(
    {**_LANGUAGE, "model.visual.": "visual.", "model.": "language_model.model."},
    _DECODER,
    (_HEAD,),
    "visual.",
)
_QWEN3 = Served({**_LANGUAGE, "model.visual.": "visual."}, _DECODER, (_HEAD,), "visual.")
_IDEFICS = Served({}, "model.text_model.", ("lm_head.", "model.connector."), "model.vision_model.")

SERVED: Mapping[str, Served] = {
    "LlavaForConditionalGeneration": _LLAVA,
    "LlavaNextForConditionalGeneration": _LLAVA_NEXT,
    "Gemma3ForConditionalGeneration": _LLAVA,
    "InternVLForConditionalGeneration": _LLAVA,
    "Qwen2_5_VLForConditionalGeneration": _QWEN2,
    "Qwen3VLForConditionalGeneration": _QWEN3,
    "Idefics3ForConditionalGeneration": _IDEFICS,
    "SmolVLMForConditionalGeneration": _IDEFICS,
}
"""Names by architecture, as in config.json."""

DEEPER = {"clip_vision_model": "vision_model.", "siglip_vision_model": "vision_model."}
"""Towers of LLaVA-like families that vLLM keeps in a module of this name, by their model_type."""


def of_weights(names: Iterable[str], served: Served, config: Mapping[str, Any]) -> list[str]:
    """Names of weights that vLLM has no place for.

    Args:
        names: as they are in the files.
        served: of the architecture.
        config: of the model.
    """
    kind = (config.get("vision_config") or {}).get("model_type")
    deeper = DEEPER.get(str(kind), "") if served.tower == "vision_tower." else ""
    places = (served.decoder, served.tower + deeper, *served.others)
    return [name for name in names if not served.rename(name).startswith(places)]


def of_adapter(names: Iterable[str], served: Served, layers: int) -> list[str]:
    """Names of an adapter's matrices that lead to no layer of the language model.

    Args:
        names: as they are in the file.
        served: of the base's architecture.
        layers: of the base's language model.
    """
    return [name for name in names if not _leads_to_layer(name, served, layers)]


def _leads_to_layer(name: str, served: Served, layers: int) -> bool:
    found = served.rename(name.removeprefix(ADAPTER_PREFIX))
    if not (name.startswith(ADAPTER_PREFIX) and found.startswith(served.decoder)):
        return False
    layer = _IN_LAYER.fullmatch(found.removeprefix(served.decoder))
    return layer is not None and int(layer[1]) < layers
