"""A model out, and what is told of it. Reading order: policy (a whole model, checked by its log-ps), adapter (LoRA's
part alone), layout (what other programs expect of a directory), served (by which names vLLM looks for weights),
checkpoint (the policy of a run's checkpoint), clean (settings without secrets and places), facts (what is known of a
run), card (facts to a README, by `card.md`), describe (card and settings into the directory), engine (a checkpoint that
answers without being exported), callback (at the end of a run), verb (`rlaifv export`) and answer (`rlaifv answer`)."""
