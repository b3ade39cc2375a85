"""Measures the operator against a real API server, beside two peers written for it.

- `plant`: the control plane, the scheduler and kwok, which plays the pods; the audit log that counts writes.
- `stages`: what kwok does with pods, by profile.
- `contenders`: the operators as processes: us, R1 (`peers/tutorial`), R2 (`peers/floor`); their CPU and memory.
- `load`: making thousands of resources, and watching what becomes of them.
- `cases`: what is measured. `results`: what is kept of it, and the table with the targets.
"""
