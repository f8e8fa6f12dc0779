"""One module per kind of figure in the papers; `experiments.figures` chooses by a specification's `kind`."""
