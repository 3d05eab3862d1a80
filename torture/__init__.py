"""`okane torture`: send payments to a real system under faults, heal it, and check every invariant over its journals.

run.py  options.py          one run, from the first start to the report; its options
clients.py                  the load: seeded clients that record every answer
subscribers.py              the owners of webhook endpoints, and a journal of what they were answered
schedule.py  nemesis.py     the seeded schedule of faults; the nemesis (as in Jepsen) makes and heals them
repairs.py                  the time of one repair when nothing else is wrong
faults/                     all faults
system/                     the servers and processes under test
network/                    the proxy on every link of it
history/                    the journals of a run: clients, provider, Postgres, metrics, Redis and logs
invariants/                 the invariants over these journals
report/                     the result of a run
"""
