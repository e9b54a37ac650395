"""A run as one web page that needs no network. Reading order: run_files (what a run left behind), curves (steps to
series), pairs (samples to rows of the page), dropped (what an import left out), held_out (what a run was measured
by), thumbnails (each distinct image once), distributions (gaps and lengths), content (what a page says), page (all
of it in one file, where nothing of it can run), verbs (`rlaifv report`, `rlaifv shards show --html`). `page.html`,
`page.css` and the scripts are what the file is made of."""
