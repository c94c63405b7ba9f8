"""The parts of the scheduler: the fair queue of waiting jobs, and its statistics. runtime/scheduler.py uses them."""
