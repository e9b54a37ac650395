"""The terms that a preference objective is made of, as a config spells them.

    losses:
      - class_path: Sigmoid
        init_args: {beta: 0.1}
      - class_path: NLL
        init_args: {weight: 0.25}

Methods that are a sum of others have no class of their own:

    RPO (arXiv 2404.19733)       Sigmoid + NLL
    MPO (arXiv 2411.10442)       Sigmoid(weight=0.8) + BCO(weight=0.2) + NLL
    RLAIF-V's SFT_weight=w       Sigmoid + NLLSum(weight=w)

A mix is a plain sum, so terms with and without a reference may stand side by side; `CPO` and `ORPO` bring an NLL of
their own. `checks.check_terms` refuses mixes that make no sense. Terms are modules so that BCO's running mean follows
the device, the training mode and the checkpoint of the objective, which holds them in an `nn.ModuleList`.
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
    """A numeric option with the rule that `Term` holds it to; NaN breaks every rule."""
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
    """Whether it reads mean log-ps per token, so that its beta prices nats per token instead of nats."""

    weight: float = _non_negative(1.0)
    """Factor in the sum; at 0 the term is logged and trains nothing."""

    def __post_init__(self) -> None:
        super().__init__()  # Here, since the generated constructor only fills the fields.
        for option in fields(self):
            value = getattr(self, option.name)
            if option.metadata and not option.metadata["allows"](value):
                raise ValueError(
                    f"{type(self).__name__} got {option.name}={value!r}, which {option.metadata['rule']}. "
                    f"Change it in the config, or leave it out for the default, {option.default}."
                )

    @property
    def name(self) -> str:
        """Name in the logs: the class in lower case."""
        return type(self).__name__.lower()

    @abstractmethod
    def forward(self, policy: PairLogps, reference: PairLogps | None) -> Tensor:
        """The loss of each pair, `(B,)`, not yet weighted."""

    def end_step(self) -> None:
        """Take in the pairs seen since the last step; all ranks call it together. Most terms do nothing."""


class _LossTerm(Term):
    """A term that calls a function of `losses` with its options."""

    loss: ClassVar[Callable[..., Tensor]]

    def forward(self, policy: PairLogps, reference: PairLogps | None = None) -> Tensor:
        models = [
            model for model in (policy, reference if self.needs_reference else None) if model is not None
        ]
        if self.per_token:
            models = [model.per_token() for model in models]
        options = {
            option.name: getattr(self, option.name) for option in fields(self) if option.name != "weight"
        }
        return self.loss(*models, **options)


@dataclass(eq=False, kw_only=True)
class Sigmoid(_LossTerm):
    """DPO, and cDPO with a label smoothing."""

    loss = staticmethod(losses.sigmoid_loss)
    beta: float = _positive(0.1)
    """Price of one nat of departure from the reference."""
    label_smoothing: float = _flip_rate(0.0)


@dataclass(eq=False, kw_only=True)
class SigmoidMean(_LossTerm):
    """Length-normalised DPO: on log-ps per token."""

    loss = staticmethod(losses.sigmoid_loss)
    per_token = True
    beta: float = _positive(5.0)
    """Price of one nat per token, hence larger than that of `Sigmoid`; 5 is Tulu 3's."""
    label_smoothing: float = _flip_rate(0.0)


@dataclass(eq=False, kw_only=True)
class Robust(_LossTerm):
    """Robust DPO, unbiased under flipped labels."""

    loss = staticmethod(losses.robust_loss)
    beta: float = _positive(0.1)
    label_smoothing: float = _flip_rate(0.1)


@dataclass(eq=False, kw_only=True)
class Hinge(_LossTerm):
    """SLiC on log-ratios."""

    loss = staticmethod(losses.hinge_loss)
    beta: float = _positive(0.1)


@dataclass(eq=False, kw_only=True)
class IPO(_LossTerm):
    """IPO on sums, as the paper writes it."""

    loss = staticmethod(losses.ipo_loss)
    beta: float = _positive(0.1)
    """The paper's tau; the margin aimed at is 1 / (2 beta) nats."""


@dataclass(eq=False, kw_only=True)
class IPOMean(_LossTerm):
    """IPO on log-ps per token, as TRL's `ipo` and the authors' results."""

    loss = staticmethod(losses.ipo_loss)
    per_token = True
    beta: float = _positive(0.1)
    """The margin aimed at is 1 / (2 beta) nats per token."""


@dataclass(eq=False, kw_only=True)
class DPOP(_LossTerm):
    """DPO that does not let chosen fall below the reference."""

    loss = staticmethod(losses.dpop_loss)
    beta: float = _positive(0.1)
    penalty: float = _non_negative(50.0)
    """Nats of margin that each nat lost by chosen costs: the paper's lambda."""


@dataclass(eq=False, kw_only=True)
class BCO(Term):
    """BCO with its threshold, the running mean of all rewards of earlier steps: `losses.bco_loss`.

    The mean takes in the pairs of a step, of all ranks, when the step ends, so that it is the same however the step is
    cut into batches; the first step has rewards of 0 anyway. Validation only reads it. It is a pair of buffers and so
    part of the checkpoint. InternVL's MPO has this shift, moved before each batch; TRL's `bco_pair` has dropped it.
    """

    beta: float = _positive(0.1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.shift: Tensor
        self.num_rewards: Tensor
        self.register_buffer("shift", torch.zeros((), dtype=torch.float32))
        self.register_buffer("num_rewards", torch.zeros((), dtype=torch.int64))
        self._seen: Tensor | float = 0.0  # Sum and number of the rewards since the last step.

    def forward(self, policy: PairLogps, reference: PairLogps) -> Tensor:
        if self.training:
            self._add(losses.rewards(policy, reference, self.beta))
        return losses.bco_loss(policy, reference, self.beta, self.shift)

    @torch.no_grad()
    def _add(self, rewards: losses.Rewards) -> None:
        both = torch.cat(rewards).to(sum_type(self.shift.device))
        # A non-finite batch may be skipped, but it would stay in the mean and in the checkpoint.
        finite = both.isfinite()
        self._seen = self._seen + torch.stack([both.where(finite, 0).sum(), finite.sum().to(both)])

    @torch.no_grad()
    def end_step(self) -> None:
        device = self.shift.device
        seen, self._seen = torch.zeros(2, dtype=sum_type(device), device=device) + self._seen, 0.0
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(seen)
        reward_sum, count = seen
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
class APOZero(_LossTerm):
    """APO-zero, each side anchored at the reference."""

    loss = staticmethod(losses.apo_zero_loss)
    beta: float = _positive(0.1)


@dataclass(eq=False, kw_only=True)
class NCA(_LossTerm):
    """Noise-contrastive alignment."""

    loss = staticmethod(losses.nca_loss)
    beta: float = _positive(0.1)


@dataclass(eq=False, kw_only=True)
class SimPO(_LossTerm):
    """SimPO, on log-ps per token and without a reference."""

    loss = staticmethod(losses.simpo_loss)
    needs_reference = False
    per_token = True
    beta: float = _positive(2.0)
    """Reward of one nat per token; the paper takes 2 to 10."""
    gamma: float = _non_negative(1.0)
    """Margin in rewards that a pair should reach; the paper starts from half of beta."""


@dataclass(eq=False, kw_only=True)
class CPO(_LossTerm):
    """CPO with its NLL."""

    loss = staticmethod(losses.cpo_loss)
    needs_reference = False
    beta: float = _positive(0.1)
    nll_weight: float = _non_negative(1.0)


@dataclass(eq=False, kw_only=True)
class ORPO(_LossTerm):
    """ORPO with its NLL."""

    loss = staticmethod(losses.orpo_loss)
    needs_reference = False
    odds_weight: float = _non_negative(0.1)
    """The paper's lambda."""


@dataclass(eq=False, kw_only=True)
class NLL(_LossTerm):
    """SFT on chosen, mean per token."""

    loss = staticmethod(losses.nll_loss)
    needs_reference = False


@dataclass(eq=False, kw_only=True)
class NLLSum(_LossTerm):
    """SFT on chosen, summed over tokens."""

    loss = staticmethod(losses.nll_sum_loss)
    needs_reference = False
