"""Whole networks through the scheduler and the cycle model: ``python -m sim.networks``."""
