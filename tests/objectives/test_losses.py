"""The preference losses: golden values, laws on random pairs, metrics."""

import math

import pytest
import torch

from rlaifv_pl.objectives import losses
from rlaifv_pl.objectives.dpo import compose
from rlaifv_pl.objectives.losses import PairLogps, Rewards, pair_metrics, rewards, token_kl
from rlaifv_pl.objectives.terms import (
    BCO,
    CPO,
    DPOP,
    IPO,
    NCA,
    NLL,
    ORPO,
    APOZero,
    Hinge,
    IPOMean,
    NLLSum,
    Robust,
    Sigmoid,
    SigmoidMean,
    SimPO,
)
from tests.objectives.pairs import (
    CHOSEN_FELL,
    EVERY_TERM,
    POLICY,
    REFERENCE,
    neighbour,
    pair,
    random_pairs,
    swapped,
)

PAIR_LOSSES = [term for term in EVERY_TERM if term not in (NLL, NLLSum)]
TWO_LN_2 = 2 * math.log(2)


# --- golden values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ([Sigmoid(beta=0.1)], 0.5981388694),
        ([Sigmoid(beta=0.1, label_smoothing=0.1)], 0.6181388694),
        ([Robust(beta=0.1, label_smoothing=0.1)], 0.5731388694),
        ([Hinge(beta=0.1)], 0.8),
        ([IPO(beta=0.1)], 9.0),
        ([IPOMean(beta=0.1)], 22.800625),
        ([SigmoidMean(beta=0.1)], 0.6819604605),
        ([BCO(beta=0.1).eval()], 1.2887933201),
        ([SimPO(beta=2.0, gamma=1.0)], 0.3132616875),
        ([CPO(beta=0.1, nll_weight=0.0)], 0.5130152524),
        ([CPO(beta=0.1)], 2.5130152524),
        ([ORPO(odds_weight=0.1)], 2.0288750784),
        ([DPOP(beta=0.1, penalty=50.0)], 0.5981388694),
        ([APOZero(beta=0.1)], 0.9500416250),
        ([NCA(beta=0.1)], 1.3387933201),
        ([NLL()], 2.0),
        ([NLLSum()], 20.0),
        ([Sigmoid(beta=0.1), NLL()], 2.5981388694),
        ([Sigmoid(beta=0.1, weight=0.8), BCO(beta=0.1, weight=0.2).eval(), NLL()], 2.7362697595),
    ],
    ids=lambda value: "+".join(map(repr, value)) if isinstance(value, list) else None,
)
def test_terms_give_the_golden_values(terms, expected):
    """By hand: hinge 1 - 0.1 * 2; IPO (2 - 5)^2; IPO per token (1/10 + 1/8 - 5)^2 = 4.775^2;
    sigmoid ln(1 + e^-0.2); SimPO ln(1 + e^-1), as 2 (-2 + 3) - 1 = 1; NLL 20 / 10."""
    loss, _ = compose(terms, POLICY, REFERENCE)
    assert loss.item() == pytest.approx(expected, abs=1e-9)


def test_dpop_charges_a_fallen_chosen():
    """Chosen lost 1 nat: -22 against -21, so a_c = -1, d = 0 and the margin is 0.1 (0 - 50) = -5."""
    loss = DPOP(beta=0.1, penalty=50.0)(CHOSEN_FELL, REFERENCE)
    assert loss.item() == pytest.approx(5.0067153485, abs=1e-9)


def test_bco_loss_takes_its_shift_off_both_rewards():
    loss = losses.bco_loss(POLICY, REFERENCE, beta=0.1, shift=0.02)
    assert loss.item() == pytest.approx(1.2888930689, abs=1e-9)


def test_the_odds_ratio_of_orpo_has_its_golden_value():
    loss = losses.orpo_loss(POLICY, odds_weight=1.0) - losses.nll_loss(POLICY)
    assert loss.item() == pytest.approx(0.2887507843, abs=1e-9)


def test_token_kl_has_its_golden_value():
    """Policy -1, reference -1.5: e^-0.5 - 1 + 0.5."""
    kl = token_kl(torch.tensor(-1.0, dtype=torch.float64), torch.tensor(-1.5, dtype=torch.float64))
    assert kl.item() == pytest.approx(0.1065306597, abs=1e-9)


# --- laws ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        (Sigmoid(beta=0.7), math.log(2)),
        (Sigmoid(label_smoothing=0.3), math.log(2)),
        (SigmoidMean(), math.log(2)),
        (Robust(), math.log(2)),
        (DPOP(), math.log(2)),
        (BCO(), TWO_LN_2),
        (NCA(), TWO_LN_2),
        (Hinge(), 1.0),
        (APOZero(), 1.0),
        (IPO(beta=0.5), 1.0),
        (IPOMean(beta=0.5), 1.0),
    ],
    ids=repr,
)
def test_a_policy_that_is_the_reference_has_a_constant_loss(term, expected):
    start = random_pairs()
    assert torch.allclose(term(start, start), torch.full_like(start.chosen, expected))


def test_swapping_chosen_and_rejected_negates_the_margin():
    policy = random_pairs()
    reference = neighbour(policy)
    margin = rewards(policy, reference, beta=0.3).margin
    assert torch.equal(rewards(swapped(policy), swapped(reference), beta=0.3).margin, -margin)


def test_swapping_the_sides_is_smoothing_all_labels():
    """cDPO at e and at 1 - e differ by what is called chosen, which fixes both of its signs."""
    policy = random_pairs()
    reference = neighbour(policy)
    ours = losses.sigmoid_loss(policy, reference, beta=0.3, label_smoothing=0.2)
    theirs = losses.sigmoid_loss(swapped(policy), swapped(reference), beta=0.3, label_smoothing=0.8)
    assert torch.allclose(ours, theirs)


def test_robust_loss_averages_to_the_clean_loss_over_flipped_labels():
    policy = random_pairs()
    reference = neighbour(policy)
    kept = losses.robust_loss(policy, reference, beta=0.3, label_smoothing=0.2)
    flipped = losses.robust_loss(swapped(policy), swapped(reference), beta=0.3, label_smoothing=0.2)
    assert torch.allclose(0.8 * kept + 0.2 * flipped, losses.sigmoid_loss(policy, reference, beta=0.3))


def test_dpo_gradient_is_the_weighted_difference_of_the_sft_gradients():
    """dL/dp_c = -w and dL/dp_r = w, with w = beta s(-beta d), which is what `grad_weight` logs."""
    policy = random_pairs()
    reference, beta = neighbour(policy), 0.3
    policy.chosen.requires_grad_()
    policy.rejected.requires_grad_()
    losses.sigmoid_loss(policy, reference, beta).sum().backward()
    weight = beta * torch.sigmoid(-rewards(policy, reference, beta).margin)
    assert torch.allclose(policy.chosen.grad, -weight)
    assert torch.allclose(policy.rejected.grad, weight)
    metrics = pair_metrics(policy, reference, beta)
    assert metrics["grad_weight"].item() == pytest.approx(weight.mean().item())


@pytest.mark.parametrize("term_class", PAIR_LOSSES)
def test_every_pair_loss_pulls_chosen_up_and_rejected_down(term_class):
    policy = random_pairs()
    policy.chosen.requires_grad_()
    policy.rejected.requires_grad_()
    start = PairLogps(*(values.detach() for values in policy))
    term_class()(policy, start).sum().backward()
    assert (policy.chosen.grad < 0).all()
    assert (policy.rejected.grad > 0).all()


@pytest.mark.parametrize("term_class", EVERY_TERM)
def test_a_pair_costs_the_same_wherever_it_stands(term_class):
    policy = random_pairs()
    reference = neighbour(policy)
    order = torch.randperm(len(policy.chosen))
    shuffled = [PairLogps(*(values[order] for values in pairs)) for pairs in (policy, reference)]
    assert torch.allclose(term_class().eval()(*shuffled), term_class().eval()(policy, reference)[order])


@pytest.mark.parametrize("term_class", EVERY_TERM)
@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [(-1e4, -1.0), (-1.0, -1e4), (-1e4, -1e4), (-1e-9, -1e-9), (0.0, 0.0), (1e-7, -1e4)],
)
def test_extreme_logps_keep_loss_and_gradient_finite_in_float32(term_class, chosen, rejected):
    policy = pair(chosen, rejected, torch.float32)
    policy.chosen.requires_grad_()
    policy.rejected.requires_grad_()
    loss = term_class()(policy, pair(-20, -24, torch.float32)).sum()
    gradients = torch.autograd.grad(loss, [policy.chosen, policy.rejected], materialize_grads=True)
    assert loss.dtype == torch.float32
    assert all(values.isfinite().all() for values in (loss, *gradients))


def test_float32_orpo_agrees_with_float64_close_to_certainty():
    rounded = losses.orpo_loss(pair(-1e-3, -1e-2, torch.float32), odds_weight=1.0)
    exact = losses.orpo_loss(pair(-1e-3, -1e-2), odds_weight=1.0)
    assert rounded.item() == pytest.approx(exact.item(), rel=1e-6)


def test_token_kl_is_zero_at_equality_and_positive_elsewhere():
    reference = -5 * torch.rand(1000)
    policy = reference + torch.randn(1000)
    assert torch.equal(token_kl(reference, reference), torch.zeros(1000))
    assert (token_kl(policy, reference) > 0).all()


def test_token_kl_averages_to_the_kl_over_tokens_of_the_policy():
    logits = torch.randn(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    policy, reference = logits.log_softmax(-1)
    kl = (policy.exp() * (policy - reference)).sum()
    assert torch.allclose((policy.exp() * token_kl(policy, reference)).sum(), kl)


def test_token_kl_goes_on_straight_and_finite_beyond_its_knee():
    policy = torch.tensor([-losses.KL_KNEE, -losses.KL_KNEE - 1e-3, -1e4], requires_grad=True)
    kl = token_kl(policy, torch.zeros(3))
    kl.sum().backward()
    assert kl.isfinite().all()
    assert torch.allclose(policy.grad, torch.tensor(-math.expm1(losses.KL_KNEE)))


# --- metrics ------------------------------------------------------------------------------------------


def test_pair_metrics_are_means_over_the_pairs_without_gradient():
    """Rewards at beta 0.1: chosen 0.1 and -0.1, rejected -0.1 twice; margins 0.2 and 0."""
    policy = PairLogps(*map(torch.cat, zip(POLICY, CHOSEN_FELL, strict=True)))
    policy.chosen.requires_grad_()
    reference = PairLogps(*map(torch.cat, zip(REFERENCE, REFERENCE, strict=True)))
    metrics = pair_metrics(policy, reference, beta=0.1)
    assert not any(value.requires_grad for value in metrics.values())
    assert {name: value.item() for name, value in metrics.items()} == pytest.approx(
        {
            "rewards/chosen": 0.0,
            "rewards/rejected": -0.1,
            "rewards/margins": 0.1,
            "rewards/accuracies": 0.5,
            "logps/chosen": -21.0,
            "logps/rejected": -24.0,
            "lengths/chosen": 10.0,
            "lengths/rejected": 8.0,
            "grad_weight": 0.1 * (0.5 + 1 / (1 + math.exp(0.2))) / 2,
        },
        abs=1e-6,
    )


def test_without_a_reference_the_reward_is_beta_times_the_logp():
    assert rewards(POLICY, None, beta=0.1) == Rewards(0.1 * POLICY.chosen, 0.1 * POLICY.rejected)
    assert pair_metrics(POLICY, None, beta=0.1)["rewards/margins"].item() == pytest.approx(0.4)
