"""`okane torture`: pay through a real system while it is being broken, heal it, and judge what everybody says of it.

run.py  options.py          one run, from the first start to the report; what it is asked to do
clients.py                  who pays: seeded, and writing down what they were told
schedule.py  nemesis.py     which faults, when and on whom; making and healing them
repairs.py                  what one repair takes when nothing else is wrong
faults/                     every fault there is
system/                     what is tortured
network/                    the proxy on every link of it
history/                    what clients, provider, Postgres, metrics, broker and logs say of the run
invariants/                 what must hold of that
report/                     what was found out
"""
