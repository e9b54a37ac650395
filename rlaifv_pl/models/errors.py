"""The error of a model that cannot be used."""

from rlaifv_pl.errors import UserError


class PolicyError(UserError, ValueError):
    """A policy that cannot be loaded or trained as configured; the message says what to change."""


def cannot_load(
    path: object, fault: str, cure: str = "Copy the whole directory again from where it came from."
) -> PolicyError:
    """Return the error of a model directory or hub name, as one sentence with its cure."""
    return PolicyError(f"cannot load the model {str(path)!r}: {fault}. {cure}")
