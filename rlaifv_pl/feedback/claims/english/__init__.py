"""Rules of English, enough to split descriptions into claims. Reading order: lexicon (word lists), sentences (their
bounds and tokens), clauses, phrases (noun phrases), references (pronouns), statements (what is stated of each thing),
wording (frames, hedges and opinions removed), questions (a statement as a sentence and as a yes/no question), spans
(its place in the text)."""
