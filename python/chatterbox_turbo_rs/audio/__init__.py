"""Sound files: reading, encoding, writing whole or not at all."""
