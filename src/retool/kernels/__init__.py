"""Faster ways to compute what PyTorch computes: no models, no settings, nothing of the other parts."""
