"""Trees of rows against the obvious twins: a trie of tokens for the layout, plain rows for the models."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from shutil import which
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    Lfm2Config,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    PreTrainedConfig,
)  # fmt: skip

from rlaifv_pl.data.collate import Collator
from rlaifv_pl.models import attention, vlm
from rlaifv_pl.models.attention import TREE
from rlaifv_pl.models.chat import Chat
from rlaifv_pl.models.policy import LoRA, PolicyError, PolicySpec, load_model, load_processor
from rlaifv_pl.models.prefix_tree import Branch, Forest, build_branches, layout_forest, spans
from rlaifv_pl.models.reference import Reference
from rlaifv_pl.models.vlm import VLM, Batch
from rlaifv_pl.records import Sample
from tests.families import FAMILIES
from tests.models.plain import PAIRS, TEXT_ONLY, keep_wide, photo
from tests.models.test_vlm import sides

ALIKE = Sample(
    key="alike",
    prompt="What is on the table?",
    images=(photo(5), photo(6)),
    chosen="There is a cup on the table.",
    rejected="There is a dog on the table, and a cat.",
)
"""Two images, and answers that open alike, so that the branches part within them."""

SAMPLES = [*PAIRS, TEXT_ONLY, ALIKE]
BACKENDS = ("dense", "split")


# --- the layout ---------------------------------------------------------------------------------------


def random_rows(seed: int) -> tuple[list[list[int]], int]:
    """1 to 4 rows of each of 3 samples over two tokens, so that they part anywhere, or not at all."""
    generator = torch.Generator().manual_seed(seed)
    copies = 1 + seed % 4
    lengths = torch.randint(1, 9, (3 * copies,), generator=generator)
    rows = [torch.randint(0, 2, (length,), generator=generator).tolist() for length in lengths]
    return rows, 3


def width_of(rows: Sequence[Sequence[int]]) -> int:
    return max(map(len, rows)) + 2


def nodes(rows: list[list[int]], samples: int) -> list[list[tuple]]:
    """The trie node of each token: its sample, and all tokens up to it."""
    return [[(row % samples, tuple(ids[: at + 1])) for at in range(len(ids))] for row, ids in enumerate(rows)]


def standing(forest: Forest, named: list[list[tuple]]) -> list[list[tuple | None]]:
    """The trie node of each column; None for padding."""
    return [
        [named[row][offset] if real else None for row, offset, real in zip(*line, strict=True)]
        for line in zip(forest.row.tolist(), forest.offset.tolist(), forest.is_real.tolist(), strict=True)
    ]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("seed", range(24))
def test_a_forest_is_a_trie_of_the_rows(seed: int, packed: bool):
    """Each node has one column, its tokens stand there, and it sees the nodes of which it is a continuation."""
    rows, samples = random_rows(seed)
    forest = layout_forest(build_branches(rows, samples), samples, width_of(rows), packed=packed)
    named = nodes(rows, samples)
    columns = standing(forest, named)
    real = [node for line in columns for node in line if node]
    assert sorted(real) == sorted({node for row in named for node in row})
    assert len(columns) == (1 if packed else samples) and (not packed or forest.is_real.all())
    flat = [node for line in columns for node in line]
    place = forest.place.view(len(rows), -1).tolist()
    for row, own in enumerate(named):
        assert [flat[place[row][at]] for at in range(len(own))] == own

    mask = attention._visible(forest, None)
    for at, line in enumerate(columns):
        for i, query in enumerate(line):
            for j, key in enumerate(line):
                if query and key:
                    opens = query[0] == key[0] and query[1][: len(key[1])] == key[1]
                    assert mask[at, 0, i, j] == opens, (query, key)
                    assert not (opens and j > i)
                else:
                    assert mask[at, 0, i, j] == (i == j) or key  # what padding sees does not matter


@pytest.mark.parametrize("seed", range(24))
def test_a_span_and_its_pieces_are_the_path_of_a_row(seed: int):
    rows, samples = random_rows(seed)
    forest = layout_forest(build_branches(rows, samples), samples, width_of(rows), packed=True)
    found, lengths = spans(forest)
    columns = standing(forest, nodes(rows, samples))[0]
    ends = torch.tensor([0, *lengths]).cumsum(0).tolist()
    pieces = [columns[begin:end] for begin, end in pairwise(ends)]
    assert list(chain(*pieces)) == columns
    at = 0
    for span in found:
        own = columns[at : at + span.length]
        path = [*chain(*(pieces[piece] for piece in span.ancestors)), *own]
        assert path == nodes(rows, samples)[span.row]
        at += span.length
    assert at == len(columns)


@pytest.mark.parametrize("packed", [False, True])
def test_a_mask_of_the_plain_rows_holds_along_each_path(packed: bool):
    """Of a random mask of the rows, whose shared tokens see alike."""
    rows, samples = [[1, 2, 3, 4], [9, 9], [1, 2, 5], [9, 8, 7]], 2
    width, generator = width_of(rows), torch.Generator().manual_seed(0)
    forest = layout_forest(build_branches(rows, samples), samples, width, packed=packed)
    mask = torch.rand(len(rows), 1, width, width, generator=generator) < 0.5
    mask[2, :, :2], mask[3, :, :1] = mask[0, :, :2], mask[1, :, :1]
    mask[:, :, 0, 1:] = False  # a root's own tokens are all that it may see
    mask[[0, 2], :, 1, 2:] = False
    seen = attention._visible(forest, mask)
    flat = attention._visible(layout_forest(build_branches(rows, samples), samples, width, packed=True), mask)
    assert seen.sum() >= flat.sum()
    place = forest.place.view(len(rows), -1)
    for row, ids in enumerate(rows):
        for i in range(len(ids)):
            for j in range(len(ids)):
                line, query = divmod(place[row, i].item(), forest.token.shape[1])
                key = place[row, j].item() % forest.token.shape[1]
                assert seen[line, 0, query, key] == (mask[row, 0, i, j] or i == j)


def test_rows_that_are_equal_or_share_nothing():
    assert build_branches([[1, 2], [1, 2]], 1) == [Branch(0, 0, 2), Branch(0, 2, 2)]
    assert build_branches([[1, 2], [3]], 1) == [Branch(0, 0, 2), Branch(0, 0, 1)]
    forest = layout_forest(build_branches([[1, 2], [1, 2]], 1), 1, 2, packed=True)
    assert forest.place.tolist() == [0, 1, 0, 1] and forest.token.tolist() == [[0, 1]]
    assert len(spans(forest)[0]) == 1


# --- the families -------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A family's tiny checkpoint in float64 with everything in it free to train."""

    family: str
    path: Path
    policy: VLM
    processor: object

    def batch(self, samples: Sequence[Sample]) -> Batch:
        batch = Collator(Chat(self.processor), sides, parts=2)(samples)
        batch.tokens.images = {
            name: value.double() if value.is_floating_point() else value
            for name, value in batch.tokens.images.items()
        }
        return batch


def load(path: Path, backend: str = "auto", **changes) -> VLM:
    """The policy, with backends that a machine without a GPU would refuse."""
    spec = PolicySpec(path=str(path), **changes)
    policy = VLM(keep_wide(load_model(spec))).double().train()
    policy.attention = backend
    return policy


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, family_dir: Callable[[str], Path]) -> Case:
    path = family_dir(request.param)
    policy = load(path, freeze_vision=False)
    return Case(request.param, path, policy, load_processor(PolicySpec(path=str(path))))


@pytest.fixture(scope="module")
def llava(family_dir: Callable[[str], Path]) -> Case:
    path = family_dir("llava")
    policy = load(path, freeze_vision=False)
    return Case("llava", path, policy, load_processor(PolicySpec(path=str(path))))


@contextmanager
def attending(policy: VLM, backend: str) -> Iterator[VLM]:
    before, policy.attention = policy.attention, backend
    try:
        yield policy
    finally:
        policy.attention = before


class Outcome(NamedTuple):
    """Of DPO against made-up reference log-ps."""

    logps: Tensor
    loss: Tensor
    gradients: dict[str, Tensor]


def outcome(policy: VLM, batch: Batch, backend: str) -> Outcome:
    """-log s(0.1 [(p_c - q_c) - (p_r - q_r)]), summed over the pairs, with q of about -6 nats a token."""
    size = len(batch.keys)
    with attending(policy, backend):
        logps = policy(batch)
        sums = torch.stack([logps[batch.tokens.sequence_id == group].sum() for group in range(2 * size)])
        noise = torch.randn(2 * size, generator=torch.Generator().manual_seed(3))
        reference = noise - 6 * torch.bincount(batch.tokens.sequence_id)
        margins = 0.1 * ((sums - reference)[:size] - (sums - reference)[size:])
        loss = torch.log1p(torch.exp(-margins)).sum()
        trained = {name: p for name, p in policy.named_parameters() if p.requires_grad}
        # Within: with checkpointing, the layers run once more.
        gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    return Outcome(logps.detach(), loss.detach(), dict(zip(trained, gradients, strict=True)))


def errors(one: Outcome, other: Outcome) -> tuple[float, float, float]:
    """Largest differences of log-ps and loss in nats, and of gradients relative to the largest gradient."""
    assert {n for n, g in one.gradients.items() if g is None} == {
        n for n, g in other.gradients.items() if g is None
    }
    gradients = [
        (g, other.gradients[name]) for name, g in one.gradients.items() if g is not None and g.numel()
    ]
    largest = max(g.abs().max().item() for _, g in gradients)
    assert largest > 1e-3
    return (
        (one.logps - other.logps).abs().max().item(),
        (one.loss - other.loss).abs().item(),
        max((a - b).abs().max().item() for a, b in gradients) / largest,
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_tree_equals_plain_rows(case: Case, backend: str, record_property: Callable):
    """Log-ps, loss and every gradient, tower and projector included, with padding and four trees in a row."""
    batch = case.batch(SAMPLES)
    assert any(
        name.startswith("model.model.vision") or "visual" in name
        for name, _ in case.policy.named_parameters()
    )
    found = errors(outcome(case.policy, batch, backend), outcome(case.policy, batch, "rows"))
    record_property("errors", found)
    assert max(found) < 1e-10, found


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_tree_equals_plain_rows_with_adapters_and_checkpointing(case: Case, backend: str):
    policy = load(case.path, lora=LoRA(rank=2, dropout=0.0), gradient_checkpointing=True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    batch = case.batch(SAMPLES)
    found = errors(outcome(policy, batch, backend), outcome(policy, batch, "rows"))
    assert max(found) < 1e-10, found


@pytest.mark.parametrize("mode", ["live", "adapter_off"])
def test_the_reference_reads_the_same_tree(case: Case, mode: str):
    policy = load(case.path, lora=LoRA(rank=2) if mode == "adapter_off" else None)
    reference, batch = Reference(policy, mode), case.batch(SAMPLES)
    with torch.no_grad(), reference.capture_vision_features():
        policy.eval()(batch)
    compared = reference.token_logps(batch)
    with torch.no_grad(), attending(policy, "rows"):
        torch.testing.assert_close(compared, policy(batch), rtol=0, atol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_company_in_a_row_does_not_matter(case: Case, backend: str):
    with torch.no_grad(), attending(case.policy, backend) as policy:
        together, batch = policy(whole := case.batch(SAMPLES)), whole
        for at, sample in enumerate(SAMPLES):
            own = case.batch([sample])
            mine = torch.cat(
                [
                    together[batch.tokens.sequence_id == at],
                    together[batch.tokens.sequence_id == at + len(SAMPLES)],
                ]
            )
            torch.testing.assert_close(policy(own), mine, rtol=0, atol=1e-10)


SECOND = replace(PAIRS[0], key="a2", rejected="There are two dogs.")
"""Another pair of the first prompt, with the same chosen answer."""


@pytest.mark.parametrize("backend", BACKENDS)
def test_pairs_of_a_prompt_are_one_tree(case: Case, backend: str):
    """The same log-ps, loss and gradients as from batches of one pair each, added up."""
    pairs = [PAIRS[0], PAIRS[1], SECOND]
    batch = case.batch(pairs)
    assert (batch.keys, batch.layout.num_trees, batch.layout.rows_per_tree) == (["a", "b", "a2"], 2, 4)
    assert max(errors(outcome(case.policy, batch, backend), outcome(case.policy, batch, "rows"))) < 1e-10
    with torch.no_grad(), attending(case.policy, backend) as policy:
        together = policy(batch)
        for at, pair in enumerate(pairs):
            own = case.batch([pair])
            mine = torch.cat(
                [
                    together[batch.tokens.sequence_id == at],
                    together[batch.tokens.sequence_id == at + len(pairs)],
                ]
            )
            torch.testing.assert_close(policy(own), mine, rtol=0, atol=1e-10)
    new = len(batch.tokens.rows["attention_mask"][4][batch.tokens.rows["attention_mask"][4] > 0])
    lengths = [branch.stop - branch.start for branch in batch.layout.branches]
    # Blocks of a and b: chosen, rejected, chosen again, the other rejected; b has no more of them.
    assert lengths[4] == lengths[5] == lengths[7] == 0 and 0 < lengths[6] < new


def test_pairs_of_another_prompt_or_picture_are_not(llava: Case):
    other = replace(SECOND, prompt="What is in the picture?")
    assert llava.batch([PAIRS[0], other]).layout.num_trees == 2
    assert llava.batch([PAIRS[0], replace(SECOND, images=(photo(5, 56, 56),))]).layout.num_trees == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_shared_is_computed_once(llava: Case, backend: str):
    """Columns of the language model: every token of both rows but the second prefix."""
    widths = []
    hook = llava.policy.model.get_decoder().register_forward_pre_hook(
        lambda _module, _inputs, options: widths.append(options["inputs_embeds"].shape[:2].numel()),
        with_kwargs=True,
    )
    batch = llava.batch([PAIRS[0]])
    try:
        with torch.no_grad(), attending(llava.policy, backend):
            llava.policy(batch)
    finally:
        hook.remove()
    one, two = (
        row[mask.bool()].tolist()
        for row, mask in zip(batch.tokens.rows["input_ids"], batch.tokens.rows["attention_mask"], strict=True)
    )
    shared = next(at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b)
    assert shared > 5
    assert widths == [len(one) + len(two) - shared]


def _columns_as_positions(_model: nn.Module, _inputs: dict, forest: Forest) -> Tensor:
    return torch.arange(forest.token.numel()).view(forest.token.shape)


def _everything_before(
    _self: Forest, line: Tensor, query: Tensor, key: Tensor, _mask: object = None
) -> Tensor:
    return (key <= query) & (line >= 0)


def _one_further(*arguments: object, **options: object) -> Forest:
    forest = layout_forest(*arguments, **options)
    forest.place = (forest.place + 1) % forest.token.numel()
    return forest


BROKEN = {
    "positions are not reset": (vlm, "positions", _columns_as_positions),
    "rejected sees chosen": (Forest, "sees", _everything_before),
    "an answer's first column predicts its first token": (vlm, "layout_forest", _one_further),
}


@pytest.mark.parametrize("mistake", BROKEN)
def test_known_mistakes_are_seen(case: Case, mistake: str, monkeypatch: pytest.MonkeyPatch):
    """The comparison would be worth nothing if these passed it."""
    batch = case.batch([PAIRS[0]])
    with torch.no_grad():
        with attending(case.policy, "rows"):
            plain = case.policy(batch)
        monkeypatch.setattr(*BROKEN[mistake])
        with attending(case.policy, "dense"):
            assert (case.policy(batch) - plain).abs().max() > 1e-3


def test_a_family_s_own_mask_is_needed(family_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch):
    """Windows, and images that see themselves."""
    path = family_dir("gemma3")
    case = Case("gemma3", path, load(path), load_processor(PolicySpec(path=str(path))))
    batch = case.batch(SAMPLES)
    with torch.no_grad(), attending(case.policy, "split"):
        right = case.policy(batch)
        monkeypatch.setattr(
            attention, "row_masks", lambda *_: dict.fromkeys(("full_attention", "sliding_attention"))
        )
        assert (case.policy(batch) - right).abs().max() > 1e-3


# --- the backends of a GPU, as far as a CPU goes --------------------------------------------------------


def _varlen(
    q: Tensor, k: Tensor, v: Tensor, ends_q: Tensor, ends_k: Tensor, _mq: int, _mk: int, **options
) -> Tensor:
    """flash-attn's contract: sequences one after the other, causal from the lower right corner, fewer heads
    of keys than of queries."""
    assert options["causal"] and options["dropout_p"] == 0 and ends_q.dtype == torch.int32
    outputs = []
    for (a, b), (c, d) in zip(pairwise(ends_q.tolist()), pairwise(ends_k.tolist()), strict=True):
        keys, values = (states[c:d].repeat_interleave(q.shape[1] // k.shape[1], 1) for states in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q[a:b], keys) * options["softmax_scale"]
        hidden = torch.ones(b - a, d - c, dtype=torch.bool).triu(d - c - (b - a) + 1)
        outputs.append(
            torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), values)
        )
    return torch.cat(outputs)


def test_the_index_lists_for_flash_attn(case: Case, monkeypatch: pytest.MonkeyPatch):
    module = ModuleType("flash_attn")
    module.flash_attn_varlen_func = _varlen
    monkeypatch.setitem(__import__("sys").modules, "flash_attn", module)
    batch = case.batch(SAMPLES)
    if case.family == "gemma3":
        with pytest.raises(PolicyError, match=r"policy\.attention: split"), attending(case.policy, "flash"):
            case.policy(batch)
        return
    found = errors(outcome(case.policy, batch, "flash"), outcome(case.policy, batch, "rows"))
    assert max(found) < 1e-10, found


def test_the_block_mask_is_the_dense_mask(case: Case):
    """As FlexAttention evaluates it: index by index, under vmap."""
    from torch.nn.attention.flex_attention import create_mask

    batch = case.batch(SAMPLES)
    masks = attention.row_masks(case.policy.model, batch.tokens.rows)
    ids = batch.tokens.rows["input_ids"]
    forest = layout_forest(batch.layout.branches, batch.layout.num_trees, ids.shape[1], packed=True)
    width = forest.token.shape[1]
    for mask in masks.values() if isinstance(masks, dict) else [masks]:
        made = create_mask(attention._block_rule(forest, mask), 1, None, width, width, device="cpu")
        assert torch.equal(made, attention._visible(forest, mask))


@pytest.mark.slow
@pytest.mark.skipif(which("c++") is None, reason="FlexAttention is compiled")
def test_flex_reads_its_block_mask(family_dir: Callable[[str], Path]):
    """Forward only: on a CPU it has no gradient."""
    path = family_dir("gemma3")
    policy = load(path).float().eval()
    batch = Collator(Chat(load_processor(PolicySpec(path=str(path)))), sides, parts=2)(SAMPLES)
    with torch.no_grad():
        found, plain = (_under(policy, batch, backend) for backend in ("flex", "rows"))
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-4)


def _under(policy: VLM, batch: Batch, backend: str) -> Tensor:
    with attending(policy, backend):
        return policy(batch)


# --- what cannot share ----------------------------------------------------------------------------------


def test_an_attention_of_transformers_keeps_rows(llava: Case):
    policy = VLM(load_model(PolicySpec(path=str(llava.path), attention="eager")), "eager")
    assert (policy.attention, policy.reason) == ("rows", "")
    assert policy.model.config.text_config._attn_implementation == "eager"


def with_decoder(case: Case, text: PreTrainedConfig) -> VLM:
    """A LLaVA with another language model of the same sizes, drawn at random."""
    own = case.policy.model.config
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    for name in (*sizes, "num_key_value_heads"):
        setattr(text, name, getattr(own.text_config, name))
    config = LlavaConfig(**own.to_dict() | {"vision_config": own.vision_config, "text_config": text})
    torch.manual_seed(0)
    return VLM(keep_wide(LlavaForConditionalGeneration(config)).double())


@pytest.mark.parametrize("backend", BACKENDS)
def test_windows_of_any_decoder_are_counted_along_the_path(llava: Case, backend: str):
    """Shorter than a prompt, so that a window counted in columns, or none, would show."""
    policy, batch = with_decoder(llava, MistralConfig(sliding_window=5)), llava.batch(SAMPLES)
    found = errors(outcome(policy, batch, backend), outcome(policy, batch, "rows"))
    assert max(found) < 1e-10, found
    policy.model.config.text_config.sliding_window = 500
    with torch.no_grad():
        wide = policy(batch)
    policy.model.config.text_config.sliding_window = 5
    assert (policy(batch) - wide).abs().max() > 1e-3


def test_a_state_from_token_to_token_keeps_rows_and_says_so(llava: Case):
    """LFM2 convolves over tokens."""
    policy = with_decoder(llava, Lfm2Config(full_attn_idxs=[1]))
    assert policy.attention == "rows" and "carry a state from token to token (conv)" in policy.reason
    with pytest.raises(PolicyError, match="Choose auto or rows"):
        VLM(policy.model, "split")


@pytest.mark.skipif(torch.cuda.is_available(), reason="it could run here")
@pytest.mark.parametrize("backend", ["flex", "flash"])
def test_a_backend_for_a_gpu_is_refused_without_one(llava: Case, backend: str):
    with pytest.raises(PolicyError, match=f"policy.attention: {backend}"):
        VLM(load_model(PolicySpec(path=str(llava.path))), backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_answers_about_images_of_their_own_are_trees_of_their_own(case: Case, backend: str):
    batch = case.batch([replace(PAIRS[0], rejected_images=(photo(7, 28, 56),)), PAIRS[1]])
    assert (batch.layout.num_trees, batch.layout.rows_per_tree) == (4, 1) and all(
        branch.start == 0 for branch in batch.layout.branches
    )
    found = errors(outcome(case.policy, batch, backend), outcome(case.policy, batch, "rows"))
    assert max(found) < 1e-10, found


def test_the_saved_config_does_not_name_our_attention(llava: Case, tmp_path: Path):
    llava.policy.model.save_pretrained(tmp_path)
    assert TREE not in (tmp_path / "config.json").read_text()
