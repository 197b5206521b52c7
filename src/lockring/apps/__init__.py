"""What is built on the locks. Everything here uses the public client only, as any other program would."""
