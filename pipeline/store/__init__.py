"""What lies on disk: files, artifacts, records, pseudonyms."""
