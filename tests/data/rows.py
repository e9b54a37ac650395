"""Rows of source files, and the samples that an import makes of them."""

import json

from rlaifv_pl.data.importers.run import import_shards
from rlaifv_pl.data.shards import load_shards

PAIR = {"prompt": "How many?", "chosen": "Two.", "rejected": "Six."}


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
