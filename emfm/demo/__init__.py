"""The demonstration: pretrained against scratch on a handful of labelled micrographs, with a report."""
