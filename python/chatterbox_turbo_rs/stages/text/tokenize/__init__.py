"""Contract of stage `text.tokenize`."""
