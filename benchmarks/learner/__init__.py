"""The learner next to its peers."""
