"""Sampling: token ids in, token ids and their log-probabilities out, with the KV cache kept between calls."""
