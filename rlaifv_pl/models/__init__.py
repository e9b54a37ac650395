"""A vision-language model as the objectives see it. Reading order: policy (load it, decide what trains),
chat (messages to tokens and targets), logps (hidden states to log-ps), vlm (one forward for every family),
tower (doing without a frozen vision tower), reference (what to compare with)."""
