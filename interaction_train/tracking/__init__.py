"""What a run leaves: loggers, figures, provenance and the report."""
