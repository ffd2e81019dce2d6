"""Tests that share a Ray cluster: a package, so that it ends with the last of them."""
