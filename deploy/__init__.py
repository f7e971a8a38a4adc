"""Deploy: wires the rooms into processes. The only reader of environment variables."""
