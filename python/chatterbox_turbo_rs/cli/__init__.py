"""The command ``chatterbox-turbo``, one file a command."""
