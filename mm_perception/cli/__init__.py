"""The command line mm-perception: one module per command."""
