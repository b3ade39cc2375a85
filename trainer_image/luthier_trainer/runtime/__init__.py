"""The process around a run: errors and exit codes, logs, progress, local folders, SIGTERM, the ranks of torchrun.

Knows nothing of models or data, and imports no other room. `errors` is the exception tree; `outcome` maps it to exit
codes; `hub` and `web` download what does not lie in storage, and `trust` says whom they trust; `launch` starts the
processes of a node and `distributed` is what they say to each other.
"""
