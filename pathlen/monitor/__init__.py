"""The depth of a network while it trains."""
