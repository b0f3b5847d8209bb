"""A record as a script or as a page that stands alone."""
