"""Rules of English, enough to take descriptions apart. Reading order: lexicon (word lists), sentences (where they
begin and end, and their tokens), clauses (what a sentence is made of), phrases (things and their descriptions),
references (whom pronouns stand for), statements (what is stated of each thing), wording (frames, hedges and opinions
off), questions (a statement as a sentence, and as the question that confirms it), places (where in the text it
stands)."""
