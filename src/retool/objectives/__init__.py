"""The mathematics of learning: pure functions on tensors, without a model and without input or output.

Suffixes of tensor names: B trajectories, T response tokens. Everywhere `mask_BT` is True on the model's tokens:
interpreter tokens are neither actions nor time steps.
"""
