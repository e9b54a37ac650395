"""Rows of source files, and the samples that an import makes of them."""

import json

from rlaifv_pl.data.importers.importer import import_shards
from rlaifv_pl.data.shards import load_shards

PAIR = {"prompt": "How many?", "chosen": "Two.", "rejected": "Six."}
ODD_CELLS = [None, 1, True, float("nan"), "", "a b", "<image>", "\ud800", "x\0y", "gpt", "data:x", b"x"]
ODD_KEYS = ["role", "content", "from", "value", "type", "text", "image", "bytes", "path", "scores", "chosen"]


def imported(tmp_path, rows, name="rows.jsonl", **options):
    """Write rows as JSON lines, import them and read the samples back."""
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    import_shards([path], tmp_path / "out", **options)
    shards = load_shards(tmp_path / "out")
    return [shards[index] for index in range(len(shards))]


def dropped(tmp_path):
    return [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]


def user(*content):
    blocks = [{"type": "image"} if part == "<image>" else {"type": "text", "text": part} for part in content]
    return {"role": "user", "content": blocks}


def assistant(text):
    return {"role": "assistant", "content": text}


def odd_value(rng, depth=0):
    """A value that no format foresees, nested a few levels deep."""
    choice = rng.random()
    if depth == 4 or choice < 0.4:
        return rng.choice(ODD_CELLS)
    if choice < 0.7:
        return [odd_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if choice < 0.85:
        return {"role": rng.choice(["user", "assistant"]), "content": odd_value(rng, depth + 1)}
    return {rng.choice(ODD_KEYS): odd_value(rng, depth + 1) for _ in range(rng.randrange(4))}
