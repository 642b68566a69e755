"""One task as the aggregator holds it in memory: what the stages have in common, below the roots that join them."""
