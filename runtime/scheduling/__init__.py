"""The parts of runtime/scheduler.py.

fair_queue.py  the waiting jobs, and which of their items are next
workers.py     the threads that run batches, and the watchdog that gives up those that hang
runs.py        one batch on its way through a device
retries.py     what becomes of an item whose batch failed
stats.py       what has been done so far
"""
