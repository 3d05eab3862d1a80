"""One module for each part of `okane bench`, each with `measure(system, options) -> Part`."""
