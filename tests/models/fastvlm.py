"""A tiny FastVLM: a convolutional tower with batch normalisation, and without SDPA."""

from pathlib import Path

import torch
import transformers as tf

from tests import family_text as text
from tests.family_models import _DECODER, _llama_tokenizer

SIZE, STRIDE = 64, 32


def build_fastvlm(path: Path) -> Path:
    """Save a random model whose statistics are those of noise, and its processor."""
    tokenizer = _llama_tokenizer()
    tower = tf.EfficientNetConfig(
        image_size=SIZE,
        width_coefficient=0.25,
        depth_coefficient=0.25,
        hidden_dim=320,
        hidden_size=320,
        dropout_rate=0.0,
        drop_connect_rate=0.5,
    )
    language = tf.LlamaConfig(
        **_DECODER, vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=4
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = tf.FastVlmForConditionalGeneration(
            tf.FastVlmConfig(
                text_config=language,
                vision_config=tower,
                image_token_id=tokenizer.image_token_id,
                image_seq_length=(SIZE // STRIDE) ** 2,
            )
        )
        seen = model.model.vision_tower.train()
        with torch.no_grad():
            seen(torch.randn(8, 3, SIZE, SIZE))
    model.eval().save_pretrained(path)
    side = {"height": SIZE, "width": SIZE}
    images = tf.CLIPImageProcessor(size=side, crop_size=side, do_center_crop=False)
    tf.LlavaProcessor(
        images,
        tokenizer,
        patch_size=STRIDE,
        vision_feature_select_strategy="full",
        chat_template=text.LLAVA_TEMPLATE,
    ).save_pretrained(path)
    return path
