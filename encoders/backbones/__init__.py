"""One network per file, parameter names as the public weights have them."""
