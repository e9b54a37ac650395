"""The preference losses: what a pair costs, as pure functions of completion log-ps.

Each takes `PairLogps` and returns one value per pair, `(B,)`, not reduced, so that the caller decides
how pairs are averaged. Notation of the equations, with s the logistic function:

    p_c, p_r   completion log-ps of chosen and rejected under the policy, summed over tokens, in nats
    q_c, q_r   the same under the reference
    a_c, a_r   log-ratios, p_c - q_c and p_r - q_r
    d          a_c - a_r; the margin is beta d
    n_c, n_r   completion tokens

Sums are the rule; a loss on means per token is had by `per_token()`, on both models alike. How losses
are weighted and configured is the business of `terms.py`; this file knows neither.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

KL_KNEE = 10.0
"""Log-ratio, in nats, from which `token_kl` goes on along its tangent."""


class PairLogps(NamedTuple):
    """Completion log-ps of the two sides of each pair, under one model."""

    chosen: Tensor
    """`(B,)`, nats, float32."""
    rejected: Tensor
    """`(B,)`, nats, float32."""
    chosen_tokens: Tensor
    """`(B,)`, tokens of the chosen completion, at least 1."""
    rejected_tokens: Tensor
    """`(B,)`, tokens of the rejected completion, at least 1."""

    def per_token(self) -> "PairLogps":
        """The mean log-p of a token instead of the sum, as if each completion had one such token."""
        return PairLogps(
            chosen=self.chosen / self.chosen_tokens,
            rejected=self.rejected / self.rejected_tokens,
            chosen_tokens=torch.ones_like(self.chosen_tokens),
            rejected_tokens=torch.ones_like(self.rejected_tokens),
        )


class Rewards(NamedTuple):
    """Implicit rewards of the two sides of each pair; no unit."""

    chosen: Tensor
    """`(B,)`, beta a_c."""
    rejected: Tensor
    """`(B,)`, beta a_r."""

    @property
    def margin(self) -> Tensor:
        """`(B,)`, beta d: how far chosen is ahead."""
        return self.chosen - self.rejected


def rewards(policy: PairLogps, reference: PairLogps | None, beta: float) -> Rewards:
    """How much likelier than the reference the policy holds each completion, times beta.

    Without a reference the log-p itself stands for the log-ratio. In the margin this amounts to a
    uniform reference, which is how CPO gets rid of it.
    """
    if reference is None:
        return Rewards(beta * policy.chosen, beta * policy.rejected)
    return Rewards(beta * (policy.chosen - reference.chosen), beta * (policy.rejected - reference.rejected))


# --- with a reference, on the margin ------------------------------------------------------------------


def sigmoid_loss(
    policy: PairLogps, reference: PairLogps, beta: float, label_smoothing: float = 0.0
) -> Tensor:
    """DPO: -log s(beta d) (Rafailov et al. 2023, arXiv 2305.18290, eq. 7).

    Its gradient is the SFT gradient of chosen minus that of rejected, times beta s(-beta d).
    With a label smoothing e it is cDPO, -(1 - e) log s(beta d) - e log s(-beta d): a share e of the
    labels is taken to be flipped, so the margin has a finite optimum (Mitchell 2023). On log-ps per
    token it is the length-normalised DPO of Tulu 3 (arXiv 2411.15124).

    >>> policy = PairLogps(*torch.tensor([[-20.0], [-24.0], [10.0], [8.0]]))
    >>> reference = PairLogps(*torch.tensor([[-21.0], [-23.0], [10.0], [8.0]]))
    >>> sigmoid_loss(policy, reference, beta=0.1)
    tensor([0.5981])
    >>> sigmoid_loss(policy.per_token(), reference.per_token(), beta=0.1)
    tensor([0.6820])
    """
    margin = rewards(policy, reference, beta).margin
    return -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)


def robust_loss(policy: PairLogps, reference: PairLogps, beta: float, label_smoothing: float) -> Tensor:
    """Robust DPO: [-(1 - e) log s(beta d) + e log s(-beta d)] / (1 - 2e) (arXiv 2403.00409).

    Over labels of which a share e is flipped, its mean is the DPO loss on the true ones. The price is
    a loss that falls below 0 without limit, where cDPO has a minimum.
    """
    margin = rewards(policy, reference, beta).margin
    kept, flipped = -F.logsigmoid(margin), -F.logsigmoid(-margin)
    return ((1 - label_smoothing) * kept - label_smoothing * flipped) / (1 - 2 * label_smoothing)


def hinge_loss(policy: PairLogps, reference: PairLogps, beta: float) -> Tensor:
    """Hinge: max(0, 1 - beta d), SLiC on log-ratios as in RSO (arXiv 2305.10425, 2309.06657)."""
    return F.relu(1 - rewards(policy, reference, beta).margin)


def ipo_loss(policy: PairLogps, reference: PairLogps, beta: float) -> Tensor:
    """IPO: (d - 1 / (2 beta))^2, a margin to reach but not to pass (arXiv 2310.12036, eq. 17).

    In nats squared. On sums it grows with the square of the length; the authors' own results, like
    TRL's, are on log-ps per token.
    """
    log_ratio_gap = rewards(policy, reference, beta=1.0).margin
    return (log_ratio_gap - 1 / (2 * beta)).square()


def dpop_loss(policy: PairLogps, reference: PairLogps, beta: float, penalty: float) -> Tensor:
    """DPO-Positive: -log s(beta (d - penalty max(0, q_c - p_c))) (arXiv 2402.13228).

    DPO may lower chosen as long as rejected falls faster; here every nat that chosen loses against
    the reference costs `penalty` nats of margin.
    """
    lost = F.relu(reference.chosen - policy.chosen)
    return -F.logsigmoid(rewards(policy, reference, beta).margin - beta * penalty * lost)


# --- with a reference, on each side by itself ---------------------------------------------------------


def bco_loss(policy: PairLogps, reference: PairLogps, beta: float, shift: Tensor | float = 0.0) -> Tensor:
    """BCO: -log s(beta a_c - shift) - log s(-(beta a_r - shift)) (arXiv 2404.04656).

    A classifier of good and bad completions, whose threshold `shift` is the running mean of both
    sides' rewards. It is given here and kept by `terms.BCO`.
    """
    reward = rewards(policy, reference, beta)
    return -F.logsigmoid(reward.chosen - shift) - F.logsigmoid(shift - reward.rejected)


def apo_zero_loss(policy: PairLogps, reference: PairLogps, beta: float) -> Tensor:
    """APO-zero: 1 - s(beta a_c) + s(beta a_r) (arXiv 2408.06266, eq. 7).

    Chosen up, rejected down, each against the reference: for chosen better than what the policy says.
    """
    reward = rewards(policy, reference, beta)
    return torch.sigmoid(-reward.chosen) + torch.sigmoid(reward.rejected)


def nca_loss(policy: PairLogps, reference: PairLogps, beta: float) -> Tensor:
    """NCA: -log s(beta a_c) - log s(-beta a_c) / 2 - log s(-beta a_r) / 2 (arXiv 2402.05369)."""
    reward = rewards(policy, reference, beta)
    noise = F.logsigmoid(-reward.chosen) + F.logsigmoid(-reward.rejected)
    return -F.logsigmoid(reward.chosen) - 0.5 * noise


# --- without a reference ------------------------------------------------------------------------------


def nll_loss(policy: PairLogps) -> Tensor:
    """SFT on chosen: -p_c / n_c, nats per token, every pair alike however long."""
    return -policy.per_token().chosen


def nll_sum_loss(policy: PairLogps) -> Tensor:
    """SFT on chosen, summed: -p_c, nats per completion, so that long ones weigh more."""
    return -policy.chosen


def simpo_loss(policy: PairLogps, beta: float, gamma: float) -> Tensor:
    """SimPO: -log s(beta (p_c / n_c - p_r / n_r) - gamma) (arXiv 2405.14734).

    Beta is per nat of a mean, hence 2 to 10 instead of 0.1; gamma is a margin in rewards.
    """
    return -F.logsigmoid(rewards(policy.per_token(), None, beta).margin - gamma)


def cpo_loss(policy: PairLogps, beta: float, nll_weight: float = 1.0) -> Tensor:
    """CPO: -log s(beta (p_c - p_r)) - nll_weight p_c / n_c (arXiv 2401.08417).

    DPO against a uniform reference; the NLL keeps the policy near the data instead.
    """
    return -F.logsigmoid(rewards(policy, None, beta).margin) + nll_weight * nll_loss(policy)


def orpo_loss(policy: PairLogps, odds_weight: float) -> Tensor:
    """ORPO: -p_c / n_c - odds_weight log s(log odds_c - log odds_r) (arXiv 2403.07691, eqs. 4-7).

    The odds are P / (1 - P) of the geometric mean P of a completion's token probabilities.
    """
    mean = policy.per_token()
    odds_ratio = -F.logsigmoid(_log_odds(mean.chosen) - _log_odds(mean.rejected))
    return nll_loss(policy) + odds_weight * odds_ratio


def _log_odds(logp: Tensor) -> Tensor:
    """log(P / (1 - P)) of P = exp(logp), `(B,)`."""
    # A sure policy rounds to log-p 0, or just over it, where the odds are infinite. One rounding step
    # below, they are finite; the clamp takes the gradient, but such a policy has nothing to gain.
    logp = logp.clamp(max=-torch.finfo(logp.dtype).eps)
    # expm1 is exact where exp(logp) is near 1 and 1 - exp(logp) would cancel.
    return logp - torch.log(-torch.expm1(logp))


# --- per token ----------------------------------------------------------------------------------------


def token_kl(policy_logps: Tensor, reference_logps: Tensor) -> Tensor:
    """Estimate KL(policy || reference) at each token: exp(r) - 1 - r, with r = log q - log p.

    Schulman's k3 ("Approximating KL Divergence", 2020): never negative, 0 at equality, and unbiased
    for tokens drawn from the policy. On tokens of a data set, as in nSFT, it is a penalty of the same
    shape but not the KL. It needs stored log-ps of the same tokens only, not the vocabulary.
    Beyond `KL_KNEE` it goes on along its tangent: in float32 exp would overflow at 88 nats.

    Args:
        policy_logps: token log-ps of the model in training, nats, any shape.
        reference_logps: of the same tokens, the same shape; computed without gradient.

    >>> token_kl(torch.tensor([-1.0, -1.0]), torch.tensor([-1.5, -1.0]))
    tensor([0.1065, 0.0000])
    """
    log_ratio = reference_logps - policy_logps
    head = log_ratio.clamp(max=KL_KNEE)
    slope = torch.expm1(head)
    return slope - head + slope * (log_ratio - head)


# --- for the logs -------------------------------------------------------------------------------------


@torch.no_grad()
def pair_metrics(policy: PairLogps, reference: PairLogps | None, beta: float) -> dict[str, Tensor]:
    """Means over the pairs, without gradient, under TRL's names and three of ours.

    `grad_weight`, beta s(-beta d), is what DPO's gradient carries in front: it is beta / 2 at the
    start, and training has stopped where it nears 0. A falling margin hides whether chosen rose or
    fell, so both sides are always given; so are their lengths, in tokens.

    Args:
        policy: log-ps under the model in training.
        reference: log-ps under the reference, or none: the rewards are then beta times the log-p.
        beta: price of one nat of departure from the reference, > 0.
    """
    reward = rewards(policy, reference, beta)
    per_pair = {
        "rewards/chosen": reward.chosen,
        "rewards/rejected": reward.rejected,
        "rewards/margins": reward.margin,
        "rewards/accuracies": reward.margin > 0,
        "logps/chosen": policy.chosen,
        "logps/rejected": policy.rejected,
        "lengths/chosen": policy.chosen_tokens,
        "lengths/rejected": policy.rejected_tokens,
        "grad_weight": beta * torch.sigmoid(-reward.margin),
    }
    return {name: values.float().mean() for name, values in per_pair.items()}
