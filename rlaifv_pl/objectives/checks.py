"""What is looked at once, at the first batch, since it would go wrong in silence."""

import math

from rlaifv_pl.models.self_check import tree_error
from rlaifv_pl.models.vlm import VLM, Batch


class RunError(RuntimeError):
    """A run that cannot go on as configured; the message says what to change."""


def check_tree(policy: VLM, batch: Batch) -> bool:
    """Compare log-ps over shared prefixes with those of plain rows.

    Returns:
        whether they could be: a batch gone bad says nothing of either.

    Raises:
        RunError: they differ by more than rounding.
    """
    error, allowed = tree_error(policy, batch)
    if math.isnan(error):
        return False
    if not error <= allowed:
        raise RunError(
            f"Log-ps of the first batch differ by {error:.2g} nats a token between {policy.attention} "
            f"attention over shared prefixes and rows computed one by one; {allowed:.2g} is what rounding "
            "explains. Training would be wrong. Set policy.attention: rows."
        )
    return True


def check_gradients(policy: VLM) -> None:
    """Look, after a backward pass over images, for parameters that train and got no gradient.

    Raises:
        RunError: there are some.
    """
    idle = [name for name, p in policy.named_parameters() if p.requires_grad and p.grad is None]
    if idle:
        raise RunError(
            f"{len(idle)} parameters are set to train but got no gradient from the first batch with images: "
            f"{', '.join(idle[:8])}{' ...' if len(idle) > 8 else ''}. Their optimiser state could not be saved "
            "and distributed training would hang. Freeze them: policy.freeze takes patterns of these names "
            "(without the leading 'model.')."
        )
