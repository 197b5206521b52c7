"""Stores of the coordinator's state: in memory, or in a directory."""
