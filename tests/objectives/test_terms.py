"""The terms of a config: the running mean of BCO, composition, refusals with their cure."""

import dataclasses
import io
import math
from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from jsonargparse import ArgumentParser

from rlaifv_pl.objectives.checks import check_terms
from rlaifv_pl.objectives.dpo import compose
from rlaifv_pl.objectives.losses import PairLogps
from rlaifv_pl.objectives.terms import (
    BCO,
    DPOP,
    IPO,
    NLL,
    ORPO,
    Hinge,
    Robust,
    Sigmoid,
    SimPO,
    Term,
)
from tests.objectives.pairs import (
    EVERY_TERM,
    POLICY,
    REFERENCE,
    neighbour,
    pair,
    random_pairs,
)

# --- the running mean of BCO --------------------------------------------------------------------------


def trained_bco(num_batches: int = 3) -> BCO:
    term = BCO(beta=0.1)
    for seed in range(num_batches):
        policy = random_pairs(num_pairs=4 + seed, seed=seed)
        term(policy, neighbour(policy, seed))
        term.end_step()
    return term


def test_bco_shift_is_the_mean_of_all_rewards_of_earlier_steps():
    """First step, rewards 0.1 and -0.3; second, 0.5 and 0.1: shifts 0 and -0.1, then 0.1."""
    term, zero = BCO(beta=0.1), pair(0, 0)
    first = term(pair(1, -3), zero)
    assert first.item() == pytest.approx(math.log1p(math.exp(-0.1)) + math.log1p(math.exp(-0.3)))
    term.end_step()
    assert term.shift.item() == pytest.approx(-0.1)
    second = term(pair(5, 1), zero)
    assert second.item() == pytest.approx(math.log1p(math.exp(-0.6)) + math.log1p(math.exp(0.2)))
    term.end_step()
    assert term.shift.item() == pytest.approx(0.1)
    assert term.num_rewards.item() == 4


def test_bco_shift_does_not_care_how_a_step_is_cut():
    policy = random_pairs(num_pairs=5)
    whole, cut = BCO(beta=0.1), BCO(beta=0.1)
    for _ in range(2):
        losses = whole(policy, neighbour(policy))
        parts = [
            cut(*(PairLogps(*(v[part] for v in pairs)) for pairs in (policy, neighbour(policy))))
            for part in (slice(0, 1), slice(1, 3), slice(3, 5))
        ]
        torch.testing.assert_close(torch.cat(parts), losses, rtol=0, atol=1e-7)
        whole.end_step(), cut.end_step()
        torch.testing.assert_close(cut.shift, whole.shift)
        assert cut.num_rewards == whole.num_rewards


def test_bco_shift_stands_still_in_validation_and_moves_without_gradient():
    term = trained_bco()
    before = term.shift.clone()
    term.eval()(POLICY, REFERENCE)
    term.end_step()
    assert torch.equal(term.shift, before)
    with torch.no_grad():
        term.train()(POLICY, REFERENCE)
    term.end_step()
    assert not torch.equal(term.shift, before)
    assert not term.shift.requires_grad


def test_bco_resumed_from_its_state_goes_on_as_if_never_stopped():
    term, file = trained_bco(), io.BytesIO()
    torch.save(torch.nn.ModuleList([Sigmoid(), term]).state_dict(), file)
    file.seek(0)
    resumed = torch.nn.ModuleList([Sigmoid(), BCO(beta=0.1)])
    resumed.load_state_dict(torch.load(file))
    assert torch.equal(resumed[1](POLICY, REFERENCE), term(POLICY, REFERENCE))
    assert torch.equal(resumed[1].shift, term.shift)
    assert term.shift.item() != 0


def test_bco_keeps_its_precision_when_the_model_is_cast():
    term = trained_bco()
    before = term.shift.clone()
    torch.nn.ModuleList([term]).to(torch.bfloat16)
    assert torch.equal(term.shift, before)
    assert term.shift.dtype == torch.float32


@pytest.mark.parametrize("num_batches", [0, 3])
def test_bco_shift_outlives_a_batch_that_is_not_finite(num_batches):
    term = trained_bco(num_batches)
    before = term.shift.clone()
    term(pair(math.nan, -math.inf), REFERENCE)
    term.end_step()
    assert torch.equal(term.shift, before)


def _bco_on_one_rank(rank: int, store: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    term, policy = BCO(beta=0.1), random_pairs(num_pairs=5)
    mine = slice(0, 2) if rank == 0 else slice(2, 5)
    term(*(PairLogps(*(v[mine] for v in pairs)) for pairs in (policy, neighbour(policy))))
    term.end_step()
    torch.save(term.state_dict(), f"{store}.{rank}")
    dist.destroy_process_group()


@pytest.mark.slow
def test_bco_shift_on_two_ranks_is_that_on_one(tmp_path):
    store = str(tmp_path / "store")
    mp.spawn(partial(_bco_on_one_rank, store=store), nprocs=2)
    term, policy = BCO(beta=0.1), random_pairs(num_pairs=5)
    term(policy, neighbour(policy))
    term.end_step()
    for rank in range(2):
        state = torch.load(f"{store}.{rank}")
        assert state["num_rewards"] == 10
        assert torch.allclose(state["shift"], term.shift)


# --- composition --------------------------------------------------------------------------------------


def test_composing_weighs_the_loss_but_logs_each_term_as_it_is():
    policy = POLICY._replace(chosen=POLICY.chosen.clone().requires_grad_())
    loss, parts = compose([Sigmoid(weight=2.0), NLL(weight=0.25), Hinge(weight=0.0)], policy, REFERENCE)
    assert loss.item() == pytest.approx(2 * 0.5981388694 + 0.25 * 2.0)
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(
        {"sigmoid": 0.5981388694, "nll": 2.0, "hinge": 0.8}
    )
    assert loss.requires_grad
    assert not any(part.requires_grad for part in parts.values())


OPTIONS = [
    (term_class, option)
    for term_class in EVERY_TERM
    for option in dataclasses.fields(term_class)
    if option.name != "weight"
]


@pytest.mark.parametrize(("term_class", "option"), OPTIONS, ids=lambda value: getattr(value, "name", None))
def test_every_option_of_a_term_reaches_its_loss(term_class, option):
    # a_c = -1 and a_r = -2: the margin is not 0, and chosen has fallen, so that DPOP's penalty bites
    policy = pair(-22, -25)
    changed = term_class(**{option.name: option.default / 2 + 0.01})
    assert changed(policy, REFERENCE).item() != term_class()(policy, REFERENCE).item()


def test_a_term_of_the_user_may_have_options_without_a_rule():
    @dataclasses.dataclass(eq=False, kw_only=True)
    class Constant(Term):
        value: float = -1.0

        def forward(self, policy, reference):
            return torch.full_like(policy.chosen, self.value)

    loss, parts = compose([Constant(weight=2.0)], POLICY, REFERENCE)
    assert loss.item() == -2.0
    assert list(parts) == ["constant"]


def test_jsonargparse_builds_a_list_of_terms_from_yaml(tmp_path):
    class Objective:
        def __init__(self, losses: list[Term]):
            self.losses = losses

    config = tmp_path / "dpo.yaml"
    config.write_text(
        "objective:\n"
        "  losses:\n"
        "  - class_path: Sigmoid\n"
        "    init_args: {beta: 0.2}\n"
        "  - class_path: rlaifv_pl.objectives.terms.BCO\n"
        "  - class_path: NLL\n"
        "    init_args: {weight: 0.25}\n"
    )
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Objective, "objective")
    terms = parser.instantiate(parser.parse_args([f"--config={config}"])).objective.losses
    assert repr(terms) == repr([Sigmoid(beta=0.2), BCO(), NLL(weight=0.25)])
    assert "shift" in terms[1].state_dict()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Sigmoid(beta=0.0), r"Sigmoid got beta=0\.0, which must be positive.*default, 0\.1\."),
        (lambda: SimPO(beta=-1.0), r"SimPO got beta=-1\.0"),
        (lambda: IPO(beta=math.nan), r"IPO got beta=nan"),
        (lambda: Sigmoid(label_smoothing=0.5), r"label_smoothing=0\.5, which is the share of flipped labels"),
        (lambda: Robust(label_smoothing=-0.1), r"Robust got label_smoothing=-0\.1"),
        (lambda: SimPO(gamma=-1.0), r"gamma=-1\.0, which must be 0 or more"),
        (lambda: DPOP(penalty=math.inf), r"penalty=inf, which must be 0 or more, and finite"),
        (lambda: NLL(weight=-0.5), r"NLL got weight=-0\.5.*default, 1\.0\."),
    ],
)
def test_a_term_refuses_an_option_out_of_range(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("terms", "has_reference", "message"),
    [
        ([], True, "`losses` is empty: give at least one term"),
        ([Sigmoid(weight=0.0), NLL(weight=0.0)], True, r"weight 0 \(Sigmoid, NLL\).*positive weight"),
        ([Sigmoid(), NLL(), Sigmoid(beta=0.5)], True, "names Sigmoid more than once.*Merge them"),
        ([Sigmoid(), SimPO()], False, "Sigmoid in `losses` compares with a reference.*SimPO, CPO, ORPO"),
        ([SimPO(), NLL()], True, r"\(SimPO, NLL\) looks at the reference.*Set `reference: none`"),
    ],
)
def test_an_impossible_list_is_refused_with_its_cure(terms, has_reference, message):
    with pytest.raises(ValueError, match=message):
        check_terms(terms, has_reference)


@pytest.mark.parametrize(
    ("terms", "has_reference"),
    [
        ([Sigmoid()], True),
        ([Sigmoid(), SimPO(), ORPO(), NLL()], True),
        ([SimPO()], False),
        ([Sigmoid(), NLL(weight=0.0)], True),
    ],
)
def test_a_list_that_can_be_meant_passes(terms, has_reference):
    check_terms(terms, has_reference)
