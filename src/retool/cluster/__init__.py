"""A run over several machines. `plan` says, before anything starts, what goes where, whether it fits and how long a
step takes: pure arithmetic on the config, the model's shape and the hardware.
"""
