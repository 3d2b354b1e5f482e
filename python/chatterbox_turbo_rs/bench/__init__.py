"""``chatterbox-turbo bench``: times, memory and the machine they were measured on."""
