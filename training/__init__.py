"""Training: makes encoders, and the invented people they are tried on."""
