"""One check of a whole model before anything is made with it; no weight is read."""

from typing import Any

from rlaifv_pl.models.model_checks import check_image_tokens, check_trainable
from rlaifv_pl.models.pretrained import load_config, load_processor, load_weights
from rlaifv_pl.models.spec import PolicySpec


def validate_checkpoint(spec: PolicySpec, processor: Any = None, *, trains: bool = False) -> bool:
    """Check that a model is complete, and that its files, config, tokenizer and processor agree.

    Args:
        spec: which model.
        processor: that goes with it, if it is loaded already.
        trains: whether its weights, or adapters on them, are to be trained.

    Returns:
        whether image tokens could be compared with features: not every model runs without its weights.

    Raises:
        PolicyError: a fault; the message names directory, file or parameter, and cure.
    """
    processor = processor or load_processor(spec)
    if trains:
        check_trainable(spec.path, load_config(spec))
    model = load_weights(spec, device_map="meta")
    return check_image_tokens(spec.path, model, processor)
