"""Your own device: small graphs to time on it, and a target made from what they took."""
