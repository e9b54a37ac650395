"""The terms that a preference objective is made of, the way a config spells them.

    losses:
      - class_path: Sigmoid
        init_args: {beta: 0.1}
      - class_path: NLL
        init_args: {weight: 0.25}

Methods that are a sum of others have no class of their own:

    RPO (arXiv 2404.19733)       Sigmoid + NLL
    MPO (arXiv 2411.10442)       Sigmoid(weight=0.8) + BCO(weight=0.2) + NLL
    RLAIF-V's SFT_weight=w       Sigmoid + NLLSum(weight=w)

Any mix is a plain sum, so terms with and without a reference may stand side by side, and `SimPO` next
to `Sigmoid` is allowed. Mind only that `CPO` and `ORPO` bring their own NLL. `check_terms` refuses the
mixes that cannot be meant. Terms are modules so that BCO's running mean follows the device, the
training mode and the checkpoint of the objective, which holds them in an `nn.ModuleList`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rlaifv_pl.models.logps import sum_type
from rlaifv_pl.objectives import losses
from rlaifv_pl.objectives.losses import PairLogps


def _option(default: float, allows: Callable[[float], bool], rule: str) -> float:
    """A number of a term with the rule that `Term` holds it to; NaN breaks every rule."""
    return field(default=default, metadata={"allows": allows, "rule": rule})


def _positive(default: float) -> float:
    return _option(default, lambda value: 0 < value < math.inf, "must be positive and finite")


def _non_negative(default: float) -> float:
    return _option(default, lambda value: 0 <= value < math.inf, "must be 0 or more, and finite")


def _flip_rate(default: float) -> float:
    rule = "is the share of flipped labels and must lie in [0, 0.5): at 0.5 the labels say nothing"
    return _option(default, lambda value: 0 <= value < 0.5, rule)


@dataclass(eq=False, kw_only=True)
class Term(nn.Module, ABC):
    """One summand of the objective: its options, checked when it is built, and its loss per pair."""

    needs_reference: ClassVar[bool] = True
    """Whether it compares with a reference; without one the objective holds a single model."""
    per_token: ClassVar[bool] = False
    """Whether its beta prices nats per token instead of nats."""

    weight: float = _non_negative(1.0)
    """Factor in the sum; at 0 the term is logged and trains nothing."""

    def __post_init__(self) -> None:
        super().__init__()  # here, since the generated constructor only fills the fields
        for option in fields(self):
            value = getattr(self, option.name)
            if option.metadata and not option.metadata["allows"](value):
                raise ValueError(
                    f"{type(self).__name__} got {option.name}={value!r}, which {option.metadata['rule']}. "
                    f"Change it in the config, or leave it out for the default, {option.default}."
                )

    @property
    def name(self) -> str:
        """What the term is called in the logs: its class in lower case."""
        return type(self).__name__.lower()

    @abstractmethod
    def forward(self, policy: PairLogps, reference: PairLogps | None) -> Tensor:
        """The loss of each pair, `(B,)`, not yet weighted."""

    def end_step(self) -> None:
        """Learn of the pairs that were met since the last step; all ranks call it together. Most terms do nothing."""


@dataclass(eq=False, kw_only=True)
class Sigmoid(Term):
    """DPO, and cDPO with a label smoothing: `losses.sigmoid_loss`."""

    beta: float = _positive(0.1)
    """Price of one nat of departure from the reference."""
    label_smoothing: float = _flip_rate(0.0)

    def forward(self, policy: PairLogps, reference: PairLogps) -> Tensor:
        return losses.sigmoid_loss(policy, reference, self.beta, self.label_smoothing)


@dataclass(eq=False, kw_only=True)
class SigmoidMean(Term):
    """Length-normalised DPO: `losses.sigmoid_loss` on log-ps per token."""

    per_token = True
    beta: float = _positive(5.0)
    """Price of one nat per token, hence larger than that of `Sigmoid`; 5 is Tulu 3's."""
    label_smoothing: float = _flip_rate(0.0)

    def forward(self, policy: PairLogps, reference: PairLogps) -> Tensor:
        mean, reference_mean = policy.per_token(), reference.per_token()
        return losses.sigmoid_loss(mean, reference_mean, self.beta, self.label_smoothing)


@dataclass(eq=False, kw_only=True)
class Robust(Term):
    """Robust DPO, unbiased under flipped labels: `losses.robust_loss`."""

    beta: float = _positive(0.1)
    label_smoothing: float = _flip_rate(0.1)

    def forward(self, policy: PairLogps, reference: PairLogps) -> Tensor:
        return losses.robust_loss(policy, reference, self.beta, self.label_smoothing)


@dataclass(eq=False, kw_only=True)
class Hinge(Term):
    """SLiC on log-ratios: `losses.hinge_loss`."""

    beta: float = _positive(0.1)

    def forward(self, policy: PairLogps, reference: PairLogps) -> Tensor:
        return losses.hinge_loss(policy, reference, self.beta)


@dataclass(eq=False, kw_only=True)
class IPO(Term):
    """IPO on sums, as the paper writes it: `losses.ipo_loss`."""

    beta: float = _positive(0.1)
    """The paper's tau; the margin aimed at is 1 / (2 beta) nats."""

    def forward(self, policy: PairLogps, reference: PairLogps) -> Tensor:
        return losses.ipo_loss(policy, reference, self.beta)


@dataclass(eq=False, kw_only=True)
class IPOMean(Term):
    """IPO on log-ps per token, as TRL's `ipo` and the authors' results: `losses.ipo_loss`."""

    per_token = True
    beta: float = _positive(0.1)
    """The margin aimed at is 1 / (2 beta) nats per token."""

    def forward(self, policy: PairLogps, reference: PairLogps) -> Tensor:
        return losses.ipo_loss(policy.per_token(), reference.per_token(), self.beta)


@dataclass(eq=False, kw_only=True)
class DPOP(Term):
    """DPO that will not let chosen fall below the reference: `losses.dpop_loss`."""

    beta: float = _positive(0.1)
    penalty: float = _non_negative(50.0)
    """Nats of margin that each nat lost by chosen costs: the paper's lambda."""

    def forward(self, policy: PairLogps, reference: PairLogps) -> Tensor:
        return losses.dpop_loss(policy, reference, self.beta, self.penalty)


@dataclass(eq=False, kw_only=True)
class APOZero(Term):
    """APO-zero, each side anchored at the reference: `losses.apo_zero_loss`."""

    beta: float = _positive(0.1)

    def forward(self, policy: PairLogps, reference: PairLogps) -> Tensor:
        return losses.apo_zero_loss(policy, reference, self.beta)


@dataclass(eq=False, kw_only=True)
class NCA(Term):
    """Noise-contrastive alignment: `losses.nca_loss`."""

    beta: float = _positive(0.1)

    def forward(self, policy: PairLogps, reference: PairLogps) -> Tensor:
        return losses.nca_loss(policy, reference, self.beta)


@dataclass(eq=False, kw_only=True)
class BCO(Term):
    """BCO with its threshold, the running mean of all rewards met in earlier steps: `losses.bco_loss`.

    The mean takes in the pairs of a step, of all ranks, when the step ends, so that it is the same however the step is
    cut into batches; the first step has rewards of 0 anyway. Validation reads it only. It is a pair of buffers and so
    part of the checkpoint. InternVL's MPO has this shift, moved before each batch; TRL's `bco_pair` has dropped it.
    """

    beta: float = _positive(0.1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.shift: Tensor
        self.num_rewards: Tensor
        self.register_buffer("shift", torch.zeros((), dtype=torch.float32))
        self.register_buffer("num_rewards", torch.zeros((), dtype=torch.int64))
        self._met: Tensor | float = 0.0  # Sum and number of the rewards since the last step.

    def forward(self, policy: PairLogps, reference: PairLogps) -> Tensor:
        if self.training:
            self._meet(losses.rewards(policy, reference, self.beta))
        return losses.bco_loss(policy, reference, self.beta, self.shift)

    @torch.no_grad()
    def _meet(self, rewards: losses.Rewards) -> None:
        both = torch.cat(rewards).to(sum_type(self.shift.device))
        # A batch gone bad may be skipped, but in the mean, and in the checkpoint, it would stay.
        finite = both.isfinite()
        self._met = self._met + torch.stack([both.where(finite, 0).sum(), finite.sum().to(both)])

    @torch.no_grad()
    def end_step(self) -> None:
        device = self.shift.device
        met, self._met = torch.zeros(2, dtype=sum_type(device), device=device) + self._met, 0.0
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(met)
        reward_sum, count = met
        self.num_rewards += count.long()
        # Not in place: what the step computed with it may have its backward pass yet to come.
        moved = (reward_sum - count * self.shift) / self.num_rewards.clamp(min=1)
        self.shift = (self.shift + moved).to(self.shift.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "BCO":
        # Under bf16-true every module is cast, and a mean of 8 bits soon stops moving: of a cast, take
        # the device and leave the type.
        shift = self.shift
        super()._apply(fn, recurse)
        self.shift = shift.to(self.shift.device)
        return self


@dataclass(eq=False, kw_only=True)
class SimPO(Term):
    """SimPO, on log-ps per token and without a reference: `losses.simpo_loss`."""

    needs_reference = False
    per_token = True
    beta: float = _positive(2.0)
    """Reward of one nat per token; the paper takes 2 to 10."""
    gamma: float = _non_negative(1.0)
    """Margin in rewards that a pair should reach; the paper starts from half of beta."""

    def forward(self, policy: PairLogps, reference: PairLogps | None = None) -> Tensor:
        return losses.simpo_loss(policy, self.beta, self.gamma)


@dataclass(eq=False, kw_only=True)
class CPO(Term):
    """CPO with its NLL: `losses.cpo_loss`."""

    needs_reference = False
    beta: float = _positive(0.1)
    nll_weight: float = _non_negative(1.0)

    def forward(self, policy: PairLogps, reference: PairLogps | None = None) -> Tensor:
        return losses.cpo_loss(policy, self.beta, self.nll_weight)


@dataclass(eq=False, kw_only=True)
class ORPO(Term):
    """ORPO with its NLL: `losses.orpo_loss`."""

    needs_reference = False
    odds_weight: float = _non_negative(0.1)
    """The paper's lambda."""

    def forward(self, policy: PairLogps, reference: PairLogps | None = None) -> Tensor:
        return losses.orpo_loss(policy, self.odds_weight)


@dataclass(eq=False, kw_only=True)
class NLL(Term):
    """SFT on chosen, mean per token: `losses.nll_loss`."""

    needs_reference = False

    def forward(self, policy: PairLogps, reference: PairLogps | None = None) -> Tensor:
        return losses.nll_loss(policy)


@dataclass(eq=False, kw_only=True)
class NLLSum(Term):
    """SFT on chosen, summed over tokens: `losses.nll_sum_loss`."""

    needs_reference = False

    def forward(self, policy: PairLogps, reference: PairLogps | None = None) -> Tensor:
        return losses.nll_sum_loss(policy)
