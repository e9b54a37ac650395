"""Random models with the geometry of LLaVA-1.5: 576 image tokens, and language models of three shapes."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>", "<image>", "user:", "assistant:", "yes", "no")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for block in message['content'] %}"
    "{{ '<image> ' if block['type'] == 'image' else block['text'] }}{% endfor %}{% endif %}"
    "{{ eos_token if message['role'] == 'assistant' else ' ' }}{% endfor %}"
    "{{ 'assistant:' if add_generation_prompt else '' }}"
)


@dataclass(frozen=True)
class Shape:
    """Of a language model and its tower."""

    width: int
    layers: int
    vocabulary: int
    heads: int = 8
    tower_width: int = 128
    tower_layers: int = 4


SHAPES = {
    # Proportions of the 7B, where the head is 2 % of the work: its ratios count.
    "prop": Shape(width=512, layers=3, vocabulary=608),
    "wide": Shape(width=1024, layers=2, vocabulary=1024, heads=16),
    # Mostly head: for memory.
    "v32k": Shape(width=512, layers=4, vocabulary=32064),
    # Mostly weights, 169 million of them: for memory of all kinds.
    "memw": Shape(width=1024, layers=12, vocabulary=8192, heads=16),
    # For the tests of the benchmarks themselves.
    "toy": Shape(width=32, layers=1, vocabulary=64, heads=2, tower_width=32, tower_layers=2),
}


def build(name: str, out: Path) -> Path:
    """Write a random model of a shape with its processor; an existing directory is taken as it is."""
    if not (out / "config.json").is_file():
        torch.manual_seed(0)
        processor = _processor(SHAPES[name])
        _model(SHAPES[name], processor).save_pretrained(out)
        processor.save_pretrained(out)
    return out


def words(count: int, seed: int, vocabulary: int) -> str:
    """A text of that many tokens."""
    drawn = torch.randint(len(SPECIALS), vocabulary, (count,), generator=torch.Generator().manual_seed(seed))
    return " ".join(f"w{number}" for number in drawn.tolist())


def picture(rng: np.random.Generator) -> bytes:
    """A photo's worth of noise."""
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (360, 480, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def _processor(shape: Shape) -> LlavaProcessor:
    names = [*SPECIALS, *(f"w{number}" for number in range(len(SPECIALS), shape.vocabulary))]
    core = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>", "user:", "assistant:"],
    )
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size=336),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def _model(shape: Shape, processor: LlavaProcessor) -> LlavaForConditionalGeneration:
    tokenizer = processor.tokenizer
    ends = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    vision = CLIPVisionConfig(
        hidden_size=shape.tower_width,
        intermediate_size=4 * shape.tower_width,
        num_hidden_layers=shape.tower_layers,
        num_attention_heads=4,
        image_size=336,
        patch_size=14,
    )
    text = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=int(2.6875 * shape.width) // 8 * 8,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=4096,
        **ends,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=576,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.update(**ends)
    return model
