"""Framed connections over asyncio: listening, dialing, and the loop that drives a core."""
