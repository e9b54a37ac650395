"""The shape of the package, held by rules: sizes, who imports whom, docstrings, no network at import."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "rlaifv_pl"
FILES = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}

LINES_OF_A_FILE = 300
LINES_OF_A_FUNCTION = 60
AIM_OF_A_FUNCTION = 40
PARAMETERS = 6
UNCHECKED_TYPES = 15

LAYERS = [
    {"coco", "console", "errors", "lightning_compat", "records", "seeds"},
    {"launcher"},
    {"models"},
    {"data"},
    {"objectives", "feedback"},
    {"evaluation"},
    {"rounds", "training", "miniature"},
    {"report"},
    {"export"},
    {"preflight"},
    {"cli"},
    {"api"},
]
"""A subpackage or file imports itself and earlier lines. Those of one line never import each other:
objectives and feedback meet in the shards."""

WITHOUT_LIGHTNING = {
    "records.py",
    "models/logps.py",
    "models/prefix_tree.py",
    "objectives/losses.py",
    "objectives/terms.py",
    "feedback/pairs/balance.py",
    "feedback/judges/combine.py",
    "feedback/pairs/pairing.py",
}

SCHEMAS = {
    "AlignmentModule",
    "LightningModule",
    "LightningDataModule",
    "Callback",
    "EpochBoundaryCallback",
    "Checkpoint",
    "ModelCheckpoint",
}
"""Constructors of their subclasses are what configs are written against: each parameter is an option
with a documented default, and as many as there are options. (Dataclasses, too, have no such limit:
their fields are no parameters of a function.)"""


def functions(source: str) -> Iterator[tuple[str, ast.FunctionDef, ast.ClassDef | None]]:
    """Name, node and class of each function, nested ones included."""
    tree = ast.parse(source)
    owner = {child: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for child in node.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = owner.get(node)
            yield (f"{inside.name}.{node.name}" if inside else node.name), node, inside


def long_functions(source: str, limit: int) -> list[str]:
    lengths = {name: node.end_lineno - node.lineno + 1 for name, node, _ in functions(source)}
    return [f"{name} ({length} lines)" for name, length in lengths.items() if length > limit]


def crowded_functions(source: str) -> list[str]:
    return [name for name, node, inside in functions(source) if _parameters(node, inside) > PARAMETERS]


def _parameters(node: ast.FunctionDef, inside: ast.ClassDef | None) -> int:
    bases = {ast.unparse(base).split(".")[-1] for base in inside.bases} if inside else set()
    if node.name == "__init__" and bases & SCHEMAS:
        return 0
    named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return sum(argument.arg not in ("self", "cls") for argument in named)


def imports(source: str) -> set[str]:
    """Modules imported anywhere in the source; of `from x import y`, both x and x.y."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def against_the_direction(name: str, source: str) -> list[str]:
    own = name.split("/")[0].removesuffix(".py")
    used = {module.split(".")[1] for module in imports(source) if module.startswith("rlaifv_pl.")}
    allowed = set().union(*LAYERS[: _line(own)]) | {own}
    return sorted(used - allowed)


def _line(part: str) -> int:
    return next(number for number, line in enumerate(LAYERS) if part in line)


def undocumented(source: str) -> list[str]:
    tree = ast.parse(source)
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    public = [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
    missing = [node.name for node in public if not ast.get_docstring(node)]
    return missing if ast.get_docstring(tree) else ["the module", *missing]


def test_files_are_short():
    lengths = {name: len(source.splitlines()) for name, source in FILES.items()}
    assert not {name: lines for name, lines in lengths.items() if lines > LINES_OF_A_FILE}


def test_functions_are_short():
    long, longish = (
        {f"{name}: {found}" for name, source in FILES.items() for found in long_functions(source, limit)}
        for limit in (LINES_OF_A_FUNCTION, AIM_OF_A_FUNCTION)
    )
    assert not long, (
        f"longer than {LINES_OF_A_FUNCTION}; longer than the {AIM_OF_A_FUNCTION} aimed at: {longish}"
    )


def test_functions_take_few_parameters():
    crowded = {f"{name}: {found}" for name, source in FILES.items() for found in crowded_functions(source)}
    assert not crowded, f"more than {PARAMETERS} parameters"


def test_imports_go_one_way():
    wrong = {
        name: against_the_direction(name, source) for name, source in FILES.items() if name != "__init__.py"
    }
    assert not {name: used for name, used in wrong.items() if used}


def test_every_part_of_the_package_has_its_layer():
    parts = {name.split("/")[0].removesuffix(".py") for name in FILES} - {"__init__"}
    assert parts <= set().union(*LAYERS)


@pytest.mark.parametrize("name", sorted(WITHOUT_LIGHTNING))
def test_what_is_pure_imports_no_lightning(name):
    assert not {module for module in imports(FILES[name]) if "lightning" in module}


def test_whatever_is_public_says_what_it_is():
    missing = {name: undocumented(source) for name, source in FILES.items()}
    assert not {name: found for name, found in missing.items() if found}


def test_code_is_ascii():
    lines = {
        f"{name}:{number}"
        for name, source in FILES.items()
        for number, line in enumerate(source.splitlines(), start=1)
        if not line.isascii()
    }
    assert not lines


NO_NETWORK = """
import socket, sys

def refuse(event, _arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise RuntimeError(f"{event} at import")

sys.addaudithook(refuse)
try:
    socket.getaddrinfo("localhost", 80)
except RuntimeError:
    pass
else:
    sys.exit("the test itself does not see the network")
import rlaifv_pl.cli.fit, rlaifv_pl.cli.commands
"""


def test_importing_the_command_lines_touches_no_network():
    done = subprocess.run([sys.executable, "-c", NO_NETWORK], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_rules_find_what_they_forbid():
    body = "\n".join("    x = 1" for _ in range(LINES_OF_A_FUNCTION))
    assert long_functions(f"def f():\n{body}", LINES_OF_A_FUNCTION) == ["f (61 lines)"]
    seven = "a, b, c, d, /, e, *, f, g=1"
    assert crowded_functions(f"class A:\n    def f(self, {seven}): ...") == ["A.f"]
    assert crowded_functions(f"class A(L.Callback):\n    def __init__(self, {seven}): ...") == []
    assert crowded_functions(f"class A(L.Callback):\n    def f(self, {seven}): ...") == ["A.f"]
    assert against_the_direction("objectives/dpo.py", "from rlaifv_pl.feedback import pair") == ["feedback"]
    assert against_the_direction("models/vlm.py", "def f():\n    import rlaifv_pl.data.batching") == ["data"]
    assert against_the_direction("training/loggers.py", "from rlaifv_pl import cli, training, records") == [
        "cli"
    ]
    assert undocumented("def f(): ...\ndef _g(): ...\nclass A:\n    'Doc.'") == ["the module", "f"]


def test_few_types_are_left_unchecked():
    found = {name: len(re.findall("# type: ignore", source)) for name, source in FILES.items()}
    assert sum(found.values()) <= UNCHECKED_TYPES, {name: count for name, count in found.items() if count}


@pytest.mark.parametrize(
    "tool",
    ["ruff format --check .", "ruff check .", pytest.param("mypy", marks=pytest.mark.slow)],
)
def test_the_formatter_the_linter_and_the_types_find_nothing(tool):
    done = subprocess.run(
        [sys.executable, "-m", *tool.split()], cwd=PACKAGE.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
