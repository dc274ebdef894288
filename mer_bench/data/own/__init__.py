"""A user's own dialogues: read from JSONL, CSV or Parquet and feature arrays, checked, and kept in one raw form."""
