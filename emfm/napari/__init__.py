"""emfm inside of napari: a reader, and two widgets. Needs the extra `emfm[napari]`.

`napari.yaml` tells napari what there is; each file here is loaded when it is first used.
"""
