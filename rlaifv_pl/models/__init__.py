"""A vision-language model as the objectives see it. Reading order: policy (load it, decide what trains),
chat (messages to tokens and targets), logps (hidden states to log-ps), vlm (one forward for every family),
reference (what to compare with)."""
