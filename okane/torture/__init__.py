"""Torture: a real system under faults on one machine, and the proof from independent journals that nothing went wrong."""
