"""How the operator is run and watched: `settings`, `logs`, the `metrics` that it counts, and `web` that serves them."""
