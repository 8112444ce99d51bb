"""Pictures packed for repeated epochs; start at store.py."""
