"""From the files of other projects to shards. The files in the order of the data:

- `sources`, `find_sources`: files, saved `datasets` and hub data sets; patterns, folders and downloaded repositories
- `readers`, `text_files`, `delimited`, `json_rows`: each kind of file to rows of cells
- `rows`: one row with its place in the source
- `images`, `encoded_images`, `fetch_image`: the images of a row to encoded files
- `image_columns`: columns that hold images, and columns that look like it
- `messages`: the turns of a row to a prompt and completions
- `samples`: what the readers of all formats share
- `column_names`, `columns`, `cells`: shared names, renamed columns, JSON inside cells
- `unread_columns`: columns that a format does not read, and misspelt ones
- `trl`, `rlaifv`, `rlaifv_verdicts`, `llava`, `llamafactory`, `swift`, `plain`, `rankings`: one file a family
- `formats`: the table of formats, and detection
- `importer`, `import_report`: `import_shards`, and the table at its end
"""
