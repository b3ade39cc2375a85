"""Reports a run to an MLflow server while it trains. Never fails a run and never slows one down."""
