"""A vision-language model as the objectives see it. Reading order: spec and policy (what is loaded and what trains),
checkpoint_files, model_checks and validate_checkpoint (one check at load; pretrained, hub_access), chat (messages to
tokens and targets; text_checks, special_tokens, processing, late_images), prefix_tree (shared prefixes once), attention
(over such trees), logps (hidden states to log-ps), vlm (one forward for every family), vision_cache (a frozen tower's
output), self_check (trees against plain rows), reference, flops, sharding (FSDP2), loading (policy and reference from a
directory), fingerprint (hashes of weights)."""
