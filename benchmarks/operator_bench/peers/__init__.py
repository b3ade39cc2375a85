"""Two operators to be measured beside ours; each is one file that `kopf run` takes, as tutorials do it."""
