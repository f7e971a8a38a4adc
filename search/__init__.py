"""Search: writes and reads the index, ranks, calibrates, measures and answers."""
