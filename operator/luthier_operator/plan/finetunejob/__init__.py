"""What to do for a FineTuneJob. Start with `policies`: the lifecycle as an ordered list of decisions.

The way through: `runs` reads what the Jobs have come to, with `attempts` and `usage`; `situation` is what the policies
then look at; one of them decides, with `restarts` and `stuck` for a training that starts over; `version_pruning` adds
what becomes of old versions; `verdicts` words the decision and `status` writes it. `deletion` is the whole of it for a
resource that is being deleted; it and `version_pruning` share `removals`.
"""
