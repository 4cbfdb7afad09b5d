"""From a manifest to a result: sessions, batches, the store of models."""
