"""`make soak`: users, a node and trouble at random, for half an hour, and invariants that hold throughout.

`world` sees all that there is, by watches of its own past the fault proxy, and checks the invariants at every event.
`users` create, edit, suspend and delete; `node` plays the pods; `trouble` kills the operator and bends its API server.
`__main__` runs them, waits for rest at the end, and writes benchmarks/results/soak.json.
"""
