"""Classes of a user's own in a config: taken by what they can do, and refused with what they lack.

jsonargparse compares type annotations of a class with those of a protocol, and takes no class without any.
"""

import dis
import inspect
from typing import Any

from jsonargparse import _typehints

_LACKING: dict[tuple[str, str], list[str]] = {}
"""What a class lacked when it was last refused, by its path and the protocol's name."""


def accept_duck_types() -> None:
    """Have configs name any class that has what a protocol asks for, whether it is annotated or not."""
    _typehints.implements_protocol = _implements


def told_lacking(path: str, protocol: str) -> list[str]:
    """What a class that a config names was refused for: methods with their parameters, and attributes."""
    return _LACKING.get((path, protocol), [])


def lacking(given: type, protocol: type) -> list[str]:
    """What a class lacks of a protocol, in words; nothing where it will do.

    >>> from rlaifv_pl.feedback.judges.labeler import Labeler
    >>> lacking(type("Mine", (), {"release": lambda self: None, "recipe": lambda self: {}}), Labeler)
    ['recipe(policy), and it has recipe()', 'verdicts(samples, questions, policy)']
    """
    found = []
    for name, member in vars(protocol).items():
        if name.startswith("_") or not (callable(member) or isinstance(member, property)):
            continue
        own = inspect.getattr_static(given, name, None)
        if own is None and _sets(given, name):
            continue
        if isinstance(member, property):
            annotated = any(name in inspect.get_annotations(base) for base in given.__mro__)
            found += [f"the attribute {name}"] if own is None and not annotated else []
        elif not callable(getattr(given, name, None)):
            found.append(_called(name, member))
        elif not _takes(getattr(given, name), own, member):
            found.append(f"{_called(name, member)}, and it has {_called(name, getattr(given, name))}")
    return found


def _implements(value: Any, protocol: Any) -> bool:
    if not _typehints.is_protocol(protocol) or value is object:
        return False
    if inspect.isfunction(value):
        return _typehints.function_implements_protocol(value, protocol)
    if not inspect.isclass(value):
        return False
    found = lacking(value, _typehints.get_protocol_origin(protocol))
    _LACKING[f"{value.__module__}.{value.__qualname__}", protocol.__name__] = found
    return not found


def _sets(given: type, name: str) -> bool:
    """Return whether instances may have an attribute that their class does not show: by `self.name = ...` in a
    method, or by `__getattr__`."""
    if hasattr(given, "__getattr__"):
        return True
    methods = [
        member for base in given.__mro__ for member in vars(base).values() if inspect.isfunction(member)
    ]
    return any(
        step.opname == "STORE_ATTR" and step.argval == name
        for method in methods
        for step in dis.get_instructions(inspect.unwrap(method))
    )


def _takes(method: Any, static: Any, member: Any) -> bool:
    """Whether a method can be called as the protocol's, by position or by name."""
    wanted = list(inspect.signature(member).parameters)
    bound = isinstance(static, classmethod | staticmethod)
    names = wanted[1:] if bound else wanted
    try:
        inspect.signature(method).bind(*names)
    except TypeError:
        return False
    except ValueError:  # Of a callable that does not tell its parameters.
        return True
    return True


def _called(name: str, method: Any) -> str:
    parameters = [one for one in inspect.signature(method).parameters if one != "self"]
    return f"{name}({', '.join(parameters)})"
