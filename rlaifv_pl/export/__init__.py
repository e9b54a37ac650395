"""The trained model as files, and their description. Reading order: policy (a whole model, checked by its log-ps),
adapter (LoRA alone), model_directory (what other programs expect), vllm_names (names of weights in vLLM), checkpoint
(the policy of a run's checkpoint), redact (settings without secrets and paths), facts (what is known of a run), card
(facts to README.md, by `card.md`), metadata (card and settings into the directory), checkpoint_engine (a checkpoint
that answers without an export), callback (the export at the end of a run)."""
