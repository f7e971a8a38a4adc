"""One method per file, found by its file name; see :mod:`training.recipe`."""
