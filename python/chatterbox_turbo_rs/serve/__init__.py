"""The model behind HTTP, as clients of OpenAI's speech API expect it (``docs/server.md``): needs ``chatterbox-turbo-rs[server]``."""
