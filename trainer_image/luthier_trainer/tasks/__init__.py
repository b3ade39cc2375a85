"""What the model learns to do: one module for each task behind one interface.

`interface` is what a task is, `registry` finds one, `evaluation` is what a final evaluation reports, `label_parsing`
reads cells, and `metrics` holds the computations that tasks share. Adding a task adds a module here, an entry in
`registry` and a value of `Task` in luthier_api. No torch here: *prepare* has none.
"""
