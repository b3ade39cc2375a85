"""What to do for a ModelDeployment. Start with `policies`: the ordered list of decisions.

`target` says which version is asked for, `rollout` how one revision takes over from another, `verdicts` words the
decision and `status` writes it. `drift` says whether texts and answers are still as in the training.
"""
