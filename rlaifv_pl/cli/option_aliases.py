"""Option names of other trainers (TRL, LLaMA-Factory, ms-swift, RLAIF-V, LLaVA) and of earlier versions, with ours."""

from collections.abc import Mapping

_BETA = "the beta of a term in model.losses (as in the config dpo)"
_NLL = "the weight of a second term in model.losses: {class_path: NLL, init_args: {weight: ...}}"
_UNCUT = "model.max_length for the whole row: samples are never cut, longer ones are refused by name"
_PIXELS = "a matter of the processor: see the preprocessor's JSON beside the weights at model.policy.path"
_DATA = "data.train, a directory of shards: `rlaifv shards import` makes it of other formats"
_LORA = "model.policy.lora (--config lora)"
_TARGETS = "not to choose: model.policy.lora puts adapters on all linear layers of the language model"

OPTION_ALIASES: Mapping[str, str] = {
    # The objective.
    "beta": _BETA,
    "dpo_beta": _BETA,
    "pref_beta": _BETA,
    "loss_type": "the terms of model.losses",
    "loss_weights": "the weight of each term in model.losses",
    "pref_loss": "the terms of model.losses",
    "rlhf_type": "the class of model, and the terms of model.losses",
    "rpo_alpha": _NLL,
    "pref_ftx": _NLL,
    "simpo_gamma": "the gamma of the term SimPO in model.losses",
    "label_smoothing": "the label_smoothing of the term Sigmoid in model.losses",
    "dpo_label_smoothing": "the label_smoothing of the term Sigmoid in model.losses",
    "ref_model": "model.reference: the policy as it was loaded",
    "ref_model_path": "model.reference: the policy as it was loaded",
    "reference_free": "model.reference none, with terms that need no reference",
    "precompute_ref_log_probs": "model.reference cached",
    "sync_ref_model": "the refresh of rounds (--config rounds)",
    # The policy.
    "model_name_or_path": "model.policy.path",
    "freeze_vit": "model.policy.freeze_vision (true unless set)",
    "freeze_vision_tower": "model.policy.freeze_vision (true unless set)",
    "unfreeze_mm_vision_tower": "model.policy.freeze_vision false",
    "freeze_aligner": "model.policy.freeze_projector",
    "freeze_multi_modal_projector": "model.policy.freeze_projector",
    "freeze_llm": "model.policy.freeze, patterns of parameter names",
    "freeze_language_model": "model.policy.freeze, patterns of parameter names",
    "use_peft": _LORA,
    "use_lora": _LORA,
    "lora_enable": _LORA,
    "finetuning_type": _LORA,
    "train_type": _LORA,
    "tuner_type": _LORA,
    "lora_rank": "model.policy.lora.rank",
    "lora_r": "model.policy.lora.rank",
    "lora_alpha": "model.policy.lora.alpha",
    "lora_dropout": "model.policy.lora.dropout",
    "lora_target": _TARGETS,
    "lora_target_modules": _TARGETS,
    "target_modules": _TARGETS,
    "gradient_checkpointing": "model.policy.gradient_checkpointing",
    "attn_implementation": "model.policy.attention",
    "attn_impl": "model.policy.attention",
    "flash_attn": "model.policy.attention",
    "torch_dtype": "model.policy.dtype",
    "trust_remote_code": "model.policy.trust_remote_code",
    # The data.
    "dataset": _DATA,
    "dataset_name": _DATA,
    "dataset_dir": _DATA,
    "data_path": _DATA,
    "per_device_train_batch_size": "data.batch_size",
    "per_device_eval_batch_size": "data.val_batch_size",
    "dataloader_num_workers": "data.num_workers",
    "padding_free": "always so: pairs are packed without padding; see data.max_tokens",
    "packing": "always so: pairs are packed without padding; see data.max_tokens",
    "max_length": "model.max_length",
    "cutoff_len": "model.max_length",
    "model_max_length": "model.max_length",
    "max_prompt_length": _UNCUT,
    "max_completion_length": _UNCUT,
    "truncation_mode": _UNCUT,
    "max_pixels": _PIXELS,
    "image_max_pixels": _PIXELS,
    # The run.
    "learning_rate": "model.optimizer.lr",
    "lr": "model.optimizer.lr",
    "weight_decay": "model.optimizer.weight_decay",
    "optim": "model.optimizer",
    "lr_scheduler_type": "model.schedule",
    "warmup_ratio": "model.warmup",
    "gradient_accumulation_steps": "trainer.accumulate_grad_batches",
    "num_train_epochs": "trainer.max_epochs",
    "max_steps": "trainer.max_steps",
    "max_grad_norm": "trainer.gradient_clip_val",
    "bf16": "trainer.precision bf16-mixed",
    "fp16": "trainer.precision 16-mixed",
    "deepspeed": "trainer.strategy",
    "output_dir": "trainer.default_root_dir",
    "overwrite_output_dir": "overwrite",
    "logging_steps": "trainer.log_every_n_steps",
    "eval_steps": "trainer.val_check_interval",
    "save_steps": "checkpoint.every_n_train_steps",
    "save_total_limit": "checkpoint.save_top_k",
    "resume_from_checkpoint": "ckpt_path (last, or a path)",
    "report_to": "trainer.logger",
    "seed": "seed_everything",
}
"""Answers that name an option name it from the root of the config."""

RENAMED_KEYS: Mapping[str, str] = {
    "checkpoint.keep": "checkpoint.save_top_k",
    "data.cache_tower": "data.cache_vision",
    "data.sort_within": "data.length_bucket",
    "data.window": "data.shuffle_window",
    "export.at_end": "export.enabled",
    "numbers.max_skips": "non_finite.max_skips",
    "numbers.on_bad": "non_finite.on_bad",
    "numbers.spike": "non_finite.spike_factor",
    "numbers.window": "non_finite.spike_window",
    "rounds.correct": "rounds.corrector",
    "rounds.ema_keep": "rounds.ema_decay",
    "rounds.probe": "rounds.evaluator",
    "rounds.restart": "rounds.reset_optimizer",
    "feedback.conquer": "feedback.labeler",
    "feedback.divide": "feedback.splitter",
    "feedback.generate": "feedback.sampling",
    "feedback.pair": "feedback.pairing",
    "wording": "templates (of a corrector), or prompt_template (of what answers a benchmark)",
    "memory": "cache",
}
"""New dotted names of config keys by their old ones.

An unknown option, or key of a config, whose dotted name has an old name in it is answered with the new one.
"""
