"""`retool rl` over several machines, on Ray: the same parts as on one, and what brings them together.

The same `run_rl` runs in each of a gang of `Learner` actors, which find each other as torchrun's processes do. What it
samples from is a `ClusterBench`, whose trajectories come from `Sampler` actors; each of these has a workbench of its
own, as `run_rl` has on one machine, with the sandbox of its node in place of one of its own. A `Controller` starts
them, knows which groups of trajectories are wanted, and starts anew what has died. It sees neither tokens nor weights,
only where they are.

Only this package imports Ray.
"""
