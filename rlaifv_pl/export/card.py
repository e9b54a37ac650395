"""The card of an exported model: facts to a README, by the template `card.md`."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from rlaifv_pl.export.facts import Facts

ROUND_COLUMNS = {
    "instance": "instance hallucination",
    "sentence": "sentence hallucination",
    "recall": "recall",
    "length": "words",
    "pairs": "pairs",
    "agreement": "labeler's agreement",
}
"""Key of a row of the rounds, and what it is called; greedy figures alone."""
_SHARES = ("instance", "sentence", "recall", "agreement")


def card_of(facts: Facts) -> str:
    """Return the README's text; the same for the same facts."""
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"inline": _inline, "cell": _cell}
    template = environment.from_string(files(__package__).joinpath("card.md").read_text())
    return template.render(
        facts=facts,
        front=yaml.safe_dump(front_matter(facts), sort_keys=False, allow_unicode=True),
        rounds=rounds_table(facts),
        terms=facts.objective.get("losses") or [],
        settings={name: value for name, value in facts.objective.items() if name not in ("class", "losses")},
    )


def front_matter(facts: Facts) -> dict[str, Any]:
    """Return the front matter that the hub reads; unknown facts are left out."""
    base = facts.base
    tags = [
        "preference-alignment",
        "hallucination",
        "rlaifv-pl",
        facts.objective["class"].removesuffix("Module").lower(),
    ]
    return {
        "library_name": "peft" if facts.is_adapter else "transformers",
        "pipeline_tag": "image-text-to-text",
        **({"base_model": base.name, "base_model_relation": _relation(facts)} if base.is_hub else {}),
        **({"license": base.license} if base.license else {}),
        "tags": [*tags, *(["lora"] if facts.lora else [])],
    }


def _relation(facts: Facts) -> str:
    return "adapter" if facts.is_adapter else "finetune"


def rounds_table(facts: Facts) -> list[list[str]]:
    """Return heading and rows of the rounds; empty for a run without any."""
    keys = [key for key in ROUND_COLUMNS if any(row.get(key) is not None for row in facts.rounds)]
    if not facts.rounds:
        return []
    rows = [
        [str(row["round"]) if row["round"] else "start", *(_figure(key, row.get(key)) for key in keys)]
        for row in facts.rounds
    ]
    return [["round", *(ROUND_COLUMNS[key] for key in keys)], *rows]


def _figure(key: str, value: float | None) -> str:
    if value is None:
        return ""
    if key in _SHARES:
        return f"{100 * value:.1f} %"
    return f"{value:z.1f}" if isinstance(value, float) else f"{value:,}"


def _inline(value: Any) -> str:
    """Return settings as one line of a text."""
    match value:
        case Mapping():
            return ", ".join(f"{name} {_inline(each)}" for name, each in value.items())
        case list() | tuple():
            return ", ".join(map(_inline, value))
        case _:
            return _cell(value)


def _cell(value: Any) -> str:
    """Return a value for one cell of a table; nothing in it can end the cell, or be taken for markup."""
    text = f"{value:zg}" if isinstance(value, float) else "none" if value is None else str(value)
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
