"""The benchmark of the console: `python -m bench.console`."""
