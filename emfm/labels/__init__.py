"""Labels of other programs, to and from labelled folders, and drafts that people correct."""
