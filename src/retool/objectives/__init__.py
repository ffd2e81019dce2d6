"""The mathematics of learning: pure functions on tensors, without a model and without input or output.

Suffixes of tensor names: B trajectories; N tokens that the *model* wrote, those of B trajectories laid end to end; T
where they are padded. `lengths_B` (int64, on the same device) says how many of the N each trajectory has, maybe none.

The interpreter's tokens are not in there at all: they are neither actions nor time steps. A trajectory with a long
result in its middle has the same advantages, ratios and weights as one without it.

Tensors of lower precision are raised to fp32 first, and sums over tokens or groups are taken in fp64 (`ragged`), so a
result does not depend on what else is in the batch. What a config chooses by name is in `registry`.
"""
