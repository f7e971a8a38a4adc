"""People we invent: faces, voices and films, with the truth about them."""
