"""A page in the browser that runs a model on a micrograph. Needs the extra `emfm[app]`."""
