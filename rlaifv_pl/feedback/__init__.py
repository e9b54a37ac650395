"""From a policy's answers to preference pairs and corrections. In the order of the data:

    prompts -> candidates/ -> claims/ -> judges/ -> pairs/ -> shards -> corrections/

`config` holds the settings of a pass, `preconditions` what is checked before the first token, and `pipeline` runs the
stages chunk by chunk (`chunks`; `ray_executor`: on many machines). `engines/` runs models, `prompt_templates` holds
every text that is sent to one, and `reasons` explains why candidates are left out."""
