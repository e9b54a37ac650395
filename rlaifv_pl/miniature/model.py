"""A LLaVA of about a million weights for the miniature world, with its processor.

Architecture, classes and file layout are those of LLaVA-1.5, so everything that works on it works
on the real one: a CLIP tower, a two-layer projector, a Llama, and a word-level tokenizer.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from rlaifv_pl.miniature.language import PUNCTUATION, WORDS
from rlaifv_pl.miniature.scenes import CELL, GRID, IMAGE_SIZE

WIDTH = 128
SPECIALS = ("<pad>", "<s>", "</s>", "<unk>", "<image>", "user:", "assistant:")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] + ': ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for block in message['content'] %}"
    "{{ '<image> ' if block['type'] == 'image' else block['text'] }}{% endfor %}{% endif %}"
    "{{ eos_token if message['role'] == 'assistant' else ' ' }}{% endfor %}"
    "{{ 'assistant:' if add_generation_prompt else '' }}"
)


def build_processor() -> LlavaProcessor:
    """Tokenizer of the world's words, image processor for its 64-pixel pictures, and chat template."""
    vocabulary = {word: index for index, word in enumerate((*SPECIALS, *PUNCTUATION, *WORDS))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.decoder = decoders.WordPiece(cleanup=True)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>", "user:", "assistant:"],
    )
    images = CLIPImageProcessorPil(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        do_center_crop=False,
        image_mean=[0.35] * 3,
        image_std=[0.28] * 3,
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=CELL,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(processor: LlavaProcessor, seed: int) -> LlavaForConditionalGeneration:
    """Fresh weights: three tower layers and three language layers, one image token per grid cell."""
    tokenizer = processor.tokenizer
    ends = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=IMAGE_SIZE,
        patch_size=CELL,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        # Wider than Llama's 0.02: at this width the default leaves attention flat for hundreds of steps.
        initializer_range=0.08,
        tie_word_embeddings=True,
        **ends,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=GRID * GRID,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config)
    # Sampling must never write what only the template may write.
    model.generation_config.update(
        **ends, suppress_tokens=[i for i in tokenizer.all_special_ids if i != tokenizer.eos_token_id]
    )
    return model


def save_fresh(out: Path, seed: int) -> None:
    """Write a new model with its processor to a directory that `from_pretrained` loads."""
    processor = build_processor()
    build_model(processor, seed).save_pretrained(out)
    processor.save_pretrained(out)
