"""One module per model family: how it trains, what its bundle holds, how it is judged."""
