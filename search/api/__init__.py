"""The search API: a FastAPI application made by a factory."""
