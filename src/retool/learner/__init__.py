"""Everything that needs gradients: the policy with its critic, batches, log-probabilities, updates, checkpoints."""
