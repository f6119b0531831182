"""Credit as pictures: colour maps, panels, contact sheets, films; of text, a page."""

from .draw import (
    ADVANTAGE,
    CONTRAST,
    display,
    diverging,
    overlay,
    robust_limit,
    sequential,
    upsample,
)
from .sample import SampleView, Scale, common_scale, credit_overlay
from .sheets import contact_sheet, credit_animation, panel

__all__ = [
    "ADVANTAGE",
    "CONTRAST",
    "SampleView",
    "Scale",
    "common_scale",
    "contact_sheet",
    "credit_animation",
    "credit_overlay",
    "display",
    "diverging",
    "overlay",
    "panel",
    "robust_limit",
    "sequential",
    "upsample",
]
