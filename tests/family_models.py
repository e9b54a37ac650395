"""Models and processors of the tiny families: one function a family, weights as transformers draws them.

What the public checkpoints have and code could trip over is kept: CLIP's second last layer for LLaVA, tiles
whose number depends on the image, windowed and bidirectional attention of Gemma 3, deepstack of Qwen3-VL,
several end tokens.
"""

import transformers as tf
from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

from tests import family_text as text

Pair = tuple[PreTrainedModel, ProcessorMixin]

_WIDTH = 32
_DECODER = {
    "hidden_size": _WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 1024,
}
_TOWER = {
    "hidden_size": _WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def _model(
    config: tf.PreTrainedConfig, tokenizer: PreTrainedTokenizerFast, ends: list[str], bos: str | None = None
) -> PreTrainedModel:
    """The model with the token ids that generation needs; `ends` are the tokens that end an answer."""
    eos = [tokenizer.convert_tokens_to_ids(token) for token in ends]
    ids = {
        "eos_token_id": eos if len(eos) > 1 else eos[0],
        "bos_token_id": None if bos is None else tokenizer.convert_tokens_to_ids(bos),
        "pad_token_id": tokenizer.pad_token_id,
    }
    for name, value in ids.items():
        setattr(config.text_config, name, value)
    model = tf.AutoModelForImageTextToText.from_config(config)
    model.generation_config = tf.GenerationConfig(**ids)
    return model


def _llama_tokenizer() -> PreTrainedTokenizerFast:
    return text.metaspace(
        ["<unk>", "<s>", "</s>", "<image>", "<pad>"],
        prefix_space=True,
        add_bos=True,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        padding_side="left",
        extra_special_tokens={"image_token": "<image>"},
    )


def llava() -> Pair:
    tokenizer = _llama_tokenizer()
    config = tf.LlavaConfig(
        vision_config=tf.CLIPVisionConfig(**_TOWER, image_size=28, patch_size=14, projection_dim=_WIDTH),
        text_config=tf.LlamaConfig(**_DECODER, vocab_size=len(tokenizer)),
        image_token_index=tokenizer.image_token_id,
        image_seq_length=4,
    )
    processor = tf.LlavaProcessor(
        tf.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=text.LLAVA_TEMPLATE,
    )
    return _model(config, tokenizer, ["</s>"], "<s>"), processor


def llava_next() -> Pair:
    tokenizer = _llama_tokenizer()
    pinpoints = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
    config = tf.LlavaNextConfig(
        vision_config=tf.CLIPVisionConfig(**_TOWER, image_size=28, patch_size=14, projection_dim=_WIDTH),
        text_config=tf.MistralConfig(**_DECODER, head_dim=16, vocab_size=len(tokenizer), sliding_window=None),
        image_token_index=tokenizer.image_token_id,
        image_grid_pinpoints=pinpoints,
        image_seq_length=4,
    )
    processor = tf.LlavaNextProcessor(
        tf.LlavaNextImageProcessor(
            size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=pinpoints
        ),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=text.LLAVA_NEXT_TEMPLATE,
    )
    return _model(config, tokenizer, ["</s>"], "<s>"), processor


def _qwen_tokenizer(*more: str, **options) -> PreTrainedTokenizerFast:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *more]
    return text.byte_level(special, eos_token="<|im_end|>", pad_token="<|endoftext|>", **options)


_QWEN_TOWER = {
    "hidden_size": _WIDTH,
    "out_hidden_size": _WIDTH,
    "intermediate_size": 64,
    "depth": 2,
    "num_heads": 2,
}
_QWEN_VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def _qwen_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    return dict(zip(names, tokenizer.convert_tokens_to_ids(list(_QWEN_VISION)), strict=True))


def qwen2_5_vl() -> Pair:
    tokenizer = _qwen_tokenizer(*_QWEN_VISION)
    mrope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
    config = tf.Qwen2_5_VLConfig(
        vision_config=_QWEN_TOWER | {"window_size": 56, "fullatt_block_indexes": [1]},
        text_config=_DECODER | {"vocab_size": len(tokenizer), "rope_parameters": mrope},
        **_qwen_ids(tokenizer),
    )
    size = {"shortest_edge": 2 * 28 * 28, "longest_edge": 8 * 28 * 28}
    processor = tf.Qwen2_5_VLProcessor(
        tf.Qwen2VLImageProcessor(size=size),
        tokenizer,
        tf.Qwen2VLVideoProcessor(size=size),
        chat_template=text.QWEN2_5_TEMPLATE,
    )
    return _model(config, tokenizer, ["<|im_end|>", "<|endoftext|>"], "<|endoftext|>"), processor


def qwen3_vl() -> Pair:
    tokenizer = _qwen_tokenizer(*_QWEN_VISION)
    mrope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    config = tf.Qwen3VLConfig(
        vision_config=_QWEN_TOWER | {"num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]},
        text_config=_DECODER | {"head_dim": 16, "vocab_size": len(tokenizer), "rope_parameters": mrope},
        **_qwen_ids(tokenizer),
    )
    image = {"size": {"shortest_edge": 2 * 32 * 32, "longest_edge": 8 * 32 * 32}, "patch_size": 16}
    image |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    processor = tf.Qwen3VLProcessor(
        tf.Qwen2VLImageProcessor(**image),
        tokenizer,
        tf.Qwen3VLVideoProcessor(**image),
        chat_template=text.QWEN3_TEMPLATE,
    )
    return _model(config, tokenizer, ["<|im_end|>", "<|endoftext|>"], "<|endoftext|>"), processor


def gemma3() -> Pair:
    image_tokens = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    tokenizer = text.metaspace(
        ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", *image_tokens.values()],
        prefix_space=False,
        add_bos=True,
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        pad_token="<pad>",
        padding_side="left",
        extra_special_tokens=image_tokens,
    )
    config = tf.Gemma3Config(
        vision_config=tf.SiglipVisionConfig(**_TOWER, image_size=56, patch_size=14, vision_use_head=False),
        text_config=tf.Gemma3TextConfig(
            **_DECODER,
            head_dim=16,
            query_pre_attn_scalar=16,
            vocab_size=len(tokenizer),
            sliding_window=16,  # shorter than a prompt: a lost window shows
            layer_types=["sliding_attention", "full_attention"],
        ),
        mm_tokens_per_image=4,
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
        image_token_index=tokenizer.image_token_id,
    )
    processor = tf.Gemma3Processor(
        tf.Gemma3ImageProcessor(size={"height": 56, "width": 56}),
        tokenizer,
        image_seq_length=4,
        chat_template=text.GEMMA3_TEMPLATE,
    )
    return _model(config, tokenizer, ["<eos>", "<end_of_turn>"], "<bos>"), processor


_IDEFICS_VISION = (
    ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"]
    + [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
)  # fmt: skip
_TILES = {"size": {"longest_edge": 112}, "max_image_size": {"longest_edge": 56}}


def idefics3() -> Pair:
    tokenizer = text.byte_level(
        ["<|begin_of_text|>", "<|end_of_text|>", "<|pad|>", *_IDEFICS_VISION],
        add_bos=True,
        bos_token="<|begin_of_text|>",
        eos_token="<|end_of_text|>",
        pad_token="<|pad|>",
        padding_side="left",
    )
    config = tf.Idefics3Config(
        vision_config=_TOWER | {"image_size": 56, "patch_size": 14},
        text_config=tf.LlamaConfig(**_DECODER, vocab_size=len(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    processor = tf.Idefics3Processor(
        tf.Idefics3ImageProcessor(**_TILES), tokenizer, image_seq_len=4, chat_template=text.IDEFICS3_TEMPLATE
    )
    model = _model(config, tokenizer, ["<|end_of_text|>", "<end_of_utterance>"], "<|begin_of_text|>")
    return model, processor


def smolvlm() -> Pair:
    tokenizer = text.byte_level(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *_IDEFICS_VISION, "<video>"],
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        unk_token="<|endoftext|>",
        pad_token="<|im_end|>",
        padding_side="left",
        extra_special_tokens={
            "fake_image_token": "<fake_token_around_image>",
            "image_token": "<image>",
            "end_of_utterance_token": "<end_of_utterance>",
            "global_image_token": "<global-img>",
            "video_token": "<video>",
        },
    )
    config = tf.SmolVLMConfig(
        vision_config=_TOWER | {"image_size": 56, "patch_size": 14},
        text_config=tf.LlamaConfig(**_DECODER, vocab_size=len(tokenizer)),
        image_token_id=tokenizer.image_token_id,
        scale_factor=2,
    )
    processor = tf.SmolVLMProcessor(
        tf.SmolVLMImageProcessor(**_TILES),
        tokenizer,
        tf.SmolVLMVideoProcessor(**_TILES),
        image_seq_len=4,
        chat_template=text.SMOLVLM_TEMPLATE,
    )
    return _model(config, tokenizer, ["<end_of_utterance>"], "<|im_start|>"), processor


def internvl() -> Pair:
    image_tokens = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = _qwen_tokenizer(
        *image_tokens.values(), padding_side="left", extra_special_tokens=image_tokens
    )
    config = tf.InternVLConfig(
        vision_config=_TOWER | {"image_size": 56, "patch_size": 14, "layer_scale_init_value": 1.0},
        text_config=tf.Qwen2Config(**_DECODER, vocab_size=len(tokenizer)),
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=4,
    )
    size = {"height": 56, "width": 56}
    processor = tf.InternVLProcessor(
        tf.GotOcr2ImageProcessor(size=size, crop_to_patches=True, min_patches=1, max_patches=2),
        tokenizer,
        tf.InternVLVideoProcessor(size=size),
        image_seq_length=4,
        chat_template=text.INTERNVL_TEMPLATE,
    )
    return _model(config, tokenizer, ["<|im_end|>"]), processor
