"""The cycle model: how long command programs take on a card, and what its counters show then."""
