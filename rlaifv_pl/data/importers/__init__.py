"""From other people's files to shards. The files in the order of the data:

- `sources`: what can be imported (files, saved `datasets`, the hub)
- `finding`: patterns, folders and downloaded data sets, to sources
- `readers`, `text_files`, `delimited`, `json_rows`: each kind of file, to rows of cells
- `rows`: one row of a source, which knows its whereabouts
- `pictures`, `web`: however a row carries its images, to encoded files
- `turns`: however a row writes its turns, to a prompt and completions
- `samples`: what the readers of all formats have in common
- `names`: columns that several formats share
- `columns`, `cells`: columns under other names, prompts for rows without one, and JSON inside of cells
- `unread`: what a format leaves of a row, and near misses of its columns
- `trl`, `rlaifv`, `verdicts`, `llava`, `llamafactory`, `swift`, `plain`, `rankings`: one file per family of formats,
  a row to its samples
- `formats`: the table of them, and which one a source has
- `run`: all of it in a row: `import_shards`
"""
