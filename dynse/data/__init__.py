"""Where training pairs come from: corpora, their cache, mixing, fixed test sets."""
