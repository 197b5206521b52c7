"""The clients: one core, a blocking and an asyncio shell, and the grants that they give out."""
