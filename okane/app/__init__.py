"""The composition root: one module a process opens its resources, runs it, and closes them in reverse order.

A process starts and runs while its dependencies are away; it logs each outage once.
"""
