"""The pipeline as a good tutorial has it, for comparison: a pool, a statement and an XADD for each request, a task and a
transaction for each message. Same schema, same durability, same provider; nothing is shared between payments.
"""
