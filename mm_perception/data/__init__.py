"""Raw recordings, datasets with presence masks, and the builder of MHD."""
