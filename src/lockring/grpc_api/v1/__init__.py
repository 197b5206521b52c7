"""Version 1 of the gRPC API: messages and stubs, generated from `proto/lockring/v1` by `make proto`."""
