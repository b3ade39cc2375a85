"""The trainer in parts: its engine without a run, its processes that may be killed, and answers to be judged.

engine builds the training engine in memory. attempts start real processes, by fork_server; endings compare what they
left. answers are made at random for every task.
"""
