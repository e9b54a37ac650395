"""Judged benchmarks as they are put to a model, from the official questions alone."""

import json

import pytest
from PIL import Image

from rlaifv_pl.cli.commands import main

OFFICIAL = {
    "objhal": '{"image_id": 42, "question": "Describe it."}',
    "llava_bench": '{"question_id": 0, "image": "042.jpg", "text": "Describe it.", "category": "detail"}',
    "refomb": '{"image_url": "https://host/x/042.jpg", "question": "Describe it.", "type": "ocr"}',
    "mmhal": '[{"image_id": "042", "question": "Describe it.", "question_type": "other"}]',
}
SAYS = {"objhal": "answer", "llava_bench": "text", "refomb": "answer", "mmhal": "model_answer"}


@pytest.mark.parametrize("metric", OFFICIAL)
def test_a_model_answers_what_a_judge_reviews(tmp_path, monkeypatch, metric):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    name = "000000000042.jpg" if metric == "objhal" else "042.jpg"
    Image.new("RGB", (2, 2)).save(tmp_path / "images" / name)
    (tmp_path / "Q.jsonl").write_text(OFFICIAL[metric])
    model = "--model.images images --model.engine tests.evaluation.judged.test_objhal.Lister"
    main(f"respond --metric {metric} --ground_truth Q.jsonl --out N.json {model}".split())
    said = json.loads((tmp_path / "N.json").read_text())
    assert (said[0] if metric == "mmhal" else said)[SAYS[metric]]
    with pytest.raises(SystemExit, match=f"then `rlaifv judge {metric}`"):
        main(f"evaluate --metric {metric} --responses N.json {model}".split())
