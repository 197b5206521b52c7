"""What is measured, a module for each workload; `table` lists them. Nothing is imported here: each client's process loads what it needs."""
