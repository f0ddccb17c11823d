"""One module per model family: network, task (how it trains) and bundle (how it ships)."""
