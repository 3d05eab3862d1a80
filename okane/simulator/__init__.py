"""The mock provider: an HTTP server with a durable journal, which can provoke every row of the outcome table.

Nothing is imported here: the command line reads `options` and must not pay for a web server.
"""
