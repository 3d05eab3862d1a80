"""The same no-op jobs through `streams`, through bare loops, and through other libraries: one small program each.

Run as `python -m bench.peers.NAME --redis URL --jobs N`, in a process of its own and with an interpreter that has the
package (see requirements-bench.txt); prints one line of JSON. Each is set up as its own documentation has it for speed:
no results kept, a hundred jobs or more in flight, hiredis and uvloop where they are.
"""
