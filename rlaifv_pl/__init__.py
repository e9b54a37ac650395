"""Align vision-language models so that they stop making things up.

    shards -> data -> objectives -> policy -> the next reference
      ^      samples   DPO|nSFT|SFT     |
      +--- feedback: candidates, claims, verdicts, scores, pairs

Reading order, which is the way of the data: `records` (what passes between stages), `data` (shards and batches),
`models` (a VLM and its log-ps), `objectives` (losses and modules), `feedback` (answers to pairs), `evaluation`
(responses to figures), `rounds` (feedback between epochs), `training` (checkpoints, logs, callbacks), `report` (a run
as a web page), `export` (the trained model with a card), `preflight` (the needs of a run), `cli` (the commands).
`miniature` holds a small world that fits a laptop.

Shapes: B pairs or samples, T tokens, M targets, V vocabulary, D width, N candidates a prompt, K claims.

The names in `__all__` are the public API for notebooks; they are imported when they are first used.
"""

from importlib import import_module
from importlib.metadata import version
from typing import Any

_EXPORTS = {
    "AnswerLogp": "api",
    "chair": "api",
    "fit": "api",
    "judge": "api",
    "score_answers": "api",
    "split": "api",
    "Candidate": "records",
    "Claim": "records",
    "Sample": "records",
    "Verdict": "records",
    "ShardWriter": "data.shards",
    "load_shards": "data.shards",
    "import_shards": "data.importers.importer",
    "Completion": "feedback.engines.engine",
    "ModelLabeler": "feedback.judges.labeler",
    "PromptedAnswer": "feedback.claims.splitter",
    "RuleSplitter": "feedback.claims.splitter",
    "TransformersEngine": "feedback.engines.transformers_engine",
    "UserError": "errors",
    "build_branches": "models.prefix_tree",
    "layout_forest": "models.prefix_tree",
}
__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("rlaifv-pl")
    if name not in _EXPORTS:
        raise AttributeError(f"module 'rlaifv_pl' has no attribute {name!r}; it exports {', '.join(__all__)}")
    return getattr(import_module(f"rlaifv_pl.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
