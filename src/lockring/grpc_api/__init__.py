"""The gRPC API of a node: see `docs/grpc.md`. Nothing here is imported unless a node serves it."""
