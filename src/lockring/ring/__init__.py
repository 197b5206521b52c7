"""Placement: where slots should be (`hash_ring`), and the cluster state that says where they are (`state`)."""
