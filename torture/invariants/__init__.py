"""What must hold of every run, judged over its journals: one module for each thing that can be wrong. Pure."""
