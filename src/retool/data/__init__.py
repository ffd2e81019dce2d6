"""Data: problems from files and data sets, cleaned on the way in."""
