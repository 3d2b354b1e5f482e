"""The command ``chatterbox-turbo``, one file a command. A module is imported when its command is asked for."""
