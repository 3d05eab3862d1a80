"""The parts of `python -m bench.webhooks`, a module each."""
