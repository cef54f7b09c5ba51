"""Where the data sets of the preparing scripts are from, for their cards; keys are fields of `DatasetCard`."""

AU_NANOPARTICLES = {
    "summary": "Patches of transmission electron micrographs of gold nanoparticles, and masks of the particles.",
    "task": "image-segmentation",
    "license": "unknown",
    "source": "<https://doi.org/10.5281/zenodo.6419024>. Its page states the licence; enter it here before publishing.",
    "citation": (
        "Sytwu, Groschner, Scott: Understanding the Influence of Receptive Field and Network Complexity in Neural "
        "Network-Guided TEM Image Analysis. Microscopy and Microanalysis 28, 2022."
    ),
}
TEMIMAGENET = {
    "summary": "Simulated atomic-resolution ADF-STEM images with noise and background, and what they shall become.",
    "task": "image-to-image",
    "license": "unknown",
    "source": "<https://github.com/xinhuolin/TEM-ImageNet-v1.3>, which names no licence: ask before publishing.",
    "citation": (
        "Lin, Zhang, Wang, Yang, Xin: TEMImageNet training library and AtomSegNet deep-learning models for "
        "high-precision atom segmentation, localization, denoising, and deblurring of atomic-resolution images. "
        "Scientific Reports 11, 5386, 2021."
    ),
}
CEM500K = {
    "summary": "Unlabelled 8-bit patches of cellular electron micrographs from many laboratories and instruments.",
    "task": "image-feature-extraction",
    "license": "cc0-1.0",
    "source": "EMPIAR-10592, <https://www.ebi.ac.uk/empiar/EMPIAR-10592/>.",
    "citation": (
        "Conrad, Narayan: CEM500K, a large-scale heterogeneous unlabeled cellular electron microscopy image dataset "
        "for deep learning. eLife 10, e65894, 2021."
    ),
}
EMPS = {
    "title": "EMPS: electron microscopy particle segmentation",
    "summary": "SEM and TEM images of nano- and microparticles from published figures, and masks of the particles.",
    "task": "image-segmentation",
    "license": "mit",
    "source": "<https://github.com/by256/emps>; lists of training and test images: <https://github.com/by256/bpartis>.",
    "citation": (
        "Yildirim, Cole: Bayesian Particle Instance Segmentation for Electron Microscopy Image Quantification. "
        "Journal of Chemical Information and Modeling 61, 1136-1149, 2021."
    ),
}
