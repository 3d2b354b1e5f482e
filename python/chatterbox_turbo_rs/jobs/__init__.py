"""Books: a document is read, cut into parts that are kept as they are spoken, and assembled into one sound file (``docs/books.md``)."""
