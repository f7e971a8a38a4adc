"""Encoders: arrays in, unit vectors out.

The ground floor. It knows no media file, clock or database, only its own folders of weights.
"""
