"""The official package as the oracle: runs in an environment that has ``chatterbox-tts``, not necessarily this package.

Nothing here imports ``chatterbox_turbo_rs``: with ``parity/`` on the path, ``python -m official.runner JOB.json`` runs a job of
``parity.official_party`` and leaves arrays (safetensors) and a report (JSON). Source: resemble-ai/chatterbox at 5de7a54.
"""
