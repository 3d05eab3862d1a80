"""The composition root: the only place that builds and closes things. One module a process: `api`, `worker`, `mock_provider`.

None needs its dependencies to be there when it starts, nor all the time: it waits for one that is away, and logs that once.
"""
