"""The rollout: one coroutine per trajectory, over a sampler, a sandbox and a protocol."""
