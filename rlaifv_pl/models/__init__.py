"""Vision-language models: load, tokenise, compute log-ps.

Reading order: spec and policy (which model, and which of its parts train), pretrained (loads and checks a model:
checkpoint_files, model_checks, hub_access), chat (messages to tokens and targets; text_checks, special_tokens,
tokenization), prefix_tree (shared prefixes once), attention (over such trees), logps (hidden states to log-ps), vlm
(batches, and one forward for every family), vision_cache (a frozen tower's output), self_check (trees against plain
rows), reference, flops, sharding (FSDP2), loading (policy and reference from a directory), fingerprint (hashes of
weights).
"""
