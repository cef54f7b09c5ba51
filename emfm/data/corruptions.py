"""The kinds of damage that pretraining does to a micrograph, and how strong they are."""

from dataclasses import dataclass

from emfm.errors import EMError
from emfm.settings import Range, check_settings, setting, settings_of

# Name: (damage, whether blocks are hidden on top of it).
CORRUPTIONS = {
    "paper": ("paper", False),
    "dose": ("dose", False),
    "masked": ("paper", True),
    "dose+masked": ("dose", True),
}
NOT_NEGATIVE = Range(least=0)
SHARE = Range(least=0, most=1)


@dataclass(frozen=True)
class CorruptionStrength:
    """Ranges of each image's damage, uniform unless said otherwise; stored with the weights.

    Deviations are standard deviations, intensities are in network values.
    """

    noise: tuple[float, float] = setting((0.0, 0.5), "paper: deviation of the Gaussian noise.", NOT_NEGATIVE)
    blur: tuple[float, float] = setting((0.0, 2.0), "paper: deviation of the Gaussian blur, in pixels.", NOT_NEGATIVE)
    dose: tuple[float, float] = setting(
        (5.0, 500.0),
        "dose: counts per pixel where the network value is +1, drawn uniformly in their logarithm.",
        Range(above=0),
    )
    read_out: tuple[float, float] = setting(
        (0.0, 0.1), "dose: deviation of the detector's Gaussian noise.", NOT_NEGATIVE
    )
    defocus: tuple[float, float] = setting(
        (0.0, 2.0), "dose: deviation of the blur before counting, in pixels.", NOT_NEGATIVE
    )
    jitter: tuple[float, float] = setting(
        (0.0, 1.0), "dose: deviation of the scan lines' displacement, in pixels.", NOT_NEGATIVE
    )
    background: tuple[float, float] = setting((0.0, 0.5), "dose: amplitude of the slow background.", NOT_NEGATIVE)
    inverted: float = setting(
        0.5, "dose: share of the images whose contrast is inverted, input and target alike.", SHARE
    )
    masked_share: tuple[float, float] = setting((0.2, 0.5), "Share of the area that is hidden in blocks.", SHARE)
    block: int = setting(16, "Side of a hidden block in pixels.", Range(least=1))

    def __post_init__(self):
        check_settings(self)
        for known in settings_of(type(self)):
            value = getattr(self, known.name)
            if isinstance(value, tuple) and value[0] > value[1]:
                raise EMError(f"{known.name} is {value}; expected (lowest, highest), in this order")
