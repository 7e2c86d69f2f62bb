"""The search-space files and the typed schema that reads them."""
