"""What an error must be for its message to be all that a user sees."""


class UserError(Exception):
    """Says what was expected, what came, and what to do about it; command lines show no traceback of it."""
