"""Training and evaluation of one model in one process or several: no storage and no registry.

`schedule` plans which examples make a step, `collate` makes tensors of them, `packing` and `attention` compute texts
without padding, `losses` says what is minimized, `memory` how much fits, and `finetuner` is the Trainer that ties them
together. `watcher` reports what happens to the progress document.
"""
