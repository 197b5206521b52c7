"""Applications of the locks. They use the public client only, as any other program would."""
