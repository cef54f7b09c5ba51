"""What the micrographs of a pretraining were like, kept with the model that came of it."""

from itertools import chain, zip_longest
from pathlib import Path

from emfm.inference.domain import DESCRIBED, domain_of
from emfm.loading.domain import write_domain
from emfm.loading.model_files import write_checksums
from emfm.modeling import EMFoundation
from emfm.pretraining.batches import PretrainingData


def note_domain(folder: Path, data: PretrainingData) -> None:
    """Write `domain.json`, and the checksums anew, into the folder of a pretrained model.

    Micrographs are taken from all sources in turn; of a stream those that it held out.
    """
    micrographs, groups = data.calibration.micrographs, data.calibration.order.groups
    each = -(-DESCRIBED // len(groups))
    spread = [group[:: -(-len(group) // each)].tolist() for group in groups]
    turns = chain.from_iterable(zip_longest(*spread))
    chosen = [index for index in turns if index is not None][:DESCRIBED]
    model = EMFoundation.from_pretrained(folder)
    write_domain(domain_of(model, [micrographs[index][0] for index in chosen]), folder)
    write_checksums(folder)
