"""The invariants of every run, checked over its journals: one module for each subject. Pure."""
