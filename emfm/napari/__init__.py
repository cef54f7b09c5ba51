"""emfm inside of napari: a reader, and two widgets. Needs the extra `emfm[napari]`.

`napari.yaml` tells napari what there is; each file here is loaded when it is first used.
"""

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path


def _load_triton_apart() -> None:
    """Import triton, which comes with torch for CUDA, so that its LLVM does not meet that of Mesa.

    Mesa draws napari's canvas on many Linux machines and brings an LLVM of another version. Where
    it was loaded first, triton would call its functions, and the process would crash.
    """
    maps = Path("/proc/self/maps")
    if sys.platform != "linux" or "triton" in sys.modules or "libLLVM" not in maps.read_text(errors="replace"):
        return
    if find_spec("triton") is None:
        return
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | os.RTLD_DEEPBIND)
    try:
        import_module("triton")
    finally:
        sys.setdlopenflags(flags)


_load_triton_apart()
