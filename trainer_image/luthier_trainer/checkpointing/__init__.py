"""How a run survives an interruption: the training loop with checkpoints, the best weights, and what storage keeps.

`fit` runs the loop, resumes and stops; `best_weights` keeps the best ones and judges early stopping; `checkpoints`
uploads and downloads in the background.
"""
