"""Placement: the function that says where slots should be."""
