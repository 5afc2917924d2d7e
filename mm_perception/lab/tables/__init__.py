"""The tables of the papers: models trained and measured side by side."""
