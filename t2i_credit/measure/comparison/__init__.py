"""Methods against each other, over seeds."""
