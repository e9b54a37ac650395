"""From other people's files to shards. The files in the order of the data:

- `rows`: a source (parquet, JSON, JSON lines, saved `datasets`) to rows, each with its whereabouts
- `pictures`: however a row carries its images, to encoded files
- `turns`: however a row writes its turns, to a prompt and completions
- `trl`, `rlaifv`, `llava`: one file per family of formats, a row to a `Sample`
- `run`: all of it in a row: `import_shards`
"""
