"""Decisions: from what is, to what is to be done. Pure functions; see `finetunejob` and `modeldeployment`."""
