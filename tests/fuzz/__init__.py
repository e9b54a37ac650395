"""Bad data, made at random from a seed: shards, sidecars and source files, each with an account of what was done.

Reading order: base (what is damaged: samples whose every part says whose it is); tars, headers, pictures, texts,
manifests, sidecars, sources and files (kinds of damage); readers (the ways through the package that data takes), truth
(whether what comes out belongs together), run (a case in a process of its own, with limits).
"""
