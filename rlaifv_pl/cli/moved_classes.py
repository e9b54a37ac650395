"""Import paths of classes that configs name, before 0.1.0 and now."""

import re

MOVED = {
    "rlaifv_pl.export.engine": "rlaifv_pl.export.checkpoint_engine",
    "rlaifv_pl.feedback.combine": "rlaifv_pl.feedback.judges.combine",
    "rlaifv_pl.feedback.conquer": "rlaifv_pl.feedback.judges.labeler",
    "rlaifv_pl.feedback.correct.model": "rlaifv_pl.feedback.corrections.llm_corrector",
    "rlaifv_pl.feedback.correct.rules": "rlaifv_pl.feedback.corrections.rule_corrector",
    "rlaifv_pl.feedback.divide": "rlaifv_pl.feedback.claims.splitter",
    "rlaifv_pl.feedback.engines.openai": "rlaifv_pl.feedback.engines.openai_engine",
    "rlaifv_pl.feedback.engines.transformers": "rlaifv_pl.feedback.engines.transformers_engine",
    "rlaifv_pl.feedback.engines.vllm": "rlaifv_pl.feedback.engines.vllm_engine",
    "rlaifv_pl.feedback.self_reward": "rlaifv_pl.feedback.judges.self_reward",
    "rlaifv_pl.feedback.split_llm": "rlaifv_pl.feedback.claims.llm_splitter",
    "rlaifv_pl.run.fsdp.FSDP2": "rlaifv_pl.training.fsdp.FSDP2Strategy",
    "rlaifv_pl.world.probe.WorldProbe": "rlaifv_pl.miniature.evaluator.MiniatureEvaluator",
    "rlaifv_pl.world": "rlaifv_pl.miniature",
}
_PATH = re.compile("|".join(rf"{re.escape(old)}(?!\w)" for old in sorted(MOVED, key=len, reverse=True)))


def moved_classes(text: str) -> list[str]:
    """List "OLD is now NEW" for each moved path that a message names.

    >>> moved_classes("No module named 'rlaifv_pl.feedback.divide'")
    ['rlaifv_pl.feedback.divide is now rlaifv_pl.feedback.claims.splitter']
    """
    return [f"{old} is now {MOVED[old]}" for old in dict.fromkeys(_PATH.findall(text))]
