"""Files, locks, plain JSON and YAML, line records, tables, progress. Imports nothing above `errors`."""
