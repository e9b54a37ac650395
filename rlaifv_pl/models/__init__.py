"""A vision-language model as the objectives see it. Reading order: policy (load it, decide what trains),
chat (messages to tokens and targets), prefix_tree (what rows share, once) and attention (over such trees),
logps (hidden states to log-ps), vlm (one forward for every family), tower (doing without a frozen vision tower),
self_check (trees against plain rows), reference (what to compare with), flops (what a step costs), fsdp (a model in
slices over many processes), loading (policy and reference out of a directory), identity (which weights these are)."""
