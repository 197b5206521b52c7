"""The asyncio client: its public face is `lockring.aio`."""
