"""From a rejected answer to a dialogue that corrects it (nSFT). Reading order: codebook (kinds of error), synonyms,
diagnosis (errors from the verdicts), dialogue_rules (which dialogues are fit), rule_corrector and llm_corrector (the
writers), pipeline (shards in, shards out)."""
