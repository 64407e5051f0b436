"""The store of decoded images: filled once from a source, read by every run, as an array or as shards."""
