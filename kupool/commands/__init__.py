"""The subcommands of ``kupool``, one module each."""
