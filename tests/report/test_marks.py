"""The marks of claims, as the page's own script draws them; run by Node, so that no browser is needed."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import rlaifv_pl.report
from rlaifv_pl.report.pairs import answer_row
from tests.report.made import claim

NODE = shutil.which("node")
SCRIPT = Path(rlaifv_pl.report.__file__).with_name("answers.js")
DRAW = """
const el = (name, attributes, ...children) => ({ name, ...attributes, text: children.flat().join("") });
const probability = (value) => value.toFixed(2);
const drawn = marked(JSON.parse(process.argv[1]));
console.log(JSON.stringify(drawn.map((piece) => typeof piece === "string" ? piece
  : piece.name === "mark" ? [piece.text, piece.class] : "badge")));
"""


def drawn(text: str, *claims: dict) -> list:
    """Plain text as it stands, marks with their verdict, and `badge` for each verdict behind them."""
    answer = json.dumps(answer_row("chosen", text, {"claims": list(claims)}))
    done = subprocess.run(
        [NODE, "-e", SCRIPT.read_text() + DRAW, answer], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(NODE is None, reason="no Node here: apt-get install nodejs")
def test_a_false_claim_paints_its_own_words_alone():
    text = "\U0001f408 A man rides a horse and wears a hat."
    horse, hat = claim(text, "rides a horse", 0.9), claim(text, "A man ... wears a hat", 0.1)
    assert drawn(text, horse, hat) == [
        "\U0001f408 ", ["A man", "no"], " ", ["rides a horse", "yes"], "badge", " and ",
        ["wears a hat", "no"], "badge", ".",
    ]  # fmt: skip
    nowhere = {**hat, "spans": []}
    assert drawn("A cat.", nowhere) == ["A cat."]
