"""Credit as pictures: colour maps, panels, contact sheets, films; of text, a page."""

from .colours import ADVANTAGE, CONTRAST, CREDIT, diverging, robust_limit, sequential
from .draw import display, token_map
from .lines import draw_lines, picture_lines
from .sample import SampleView, Scale, common_scale, credit_overlay
from .sheets import contact_sheet, credit_animation, panel

__all__ = [
    "ADVANTAGE",
    "CONTRAST",
    "CREDIT",
    "SampleView",
    "Scale",
    "common_scale",
    "contact_sheet",
    "credit_animation",
    "credit_overlay",
    "display",
    "diverging",
    "draw_lines",
    "panel",
    "picture_lines",
    "robust_limit",
    "sequential",
    "token_map",
]
