"""Benchmarks of the gateware; ``python -m sim.bench`` runs them."""
