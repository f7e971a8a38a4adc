"""Ingest: a file becomes face tracks and speech turns, and jobs do that for many files."""
