"""Conformance of the gateway adapters, with simulators that others wrote, in processes of their own."""
