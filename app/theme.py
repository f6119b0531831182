"""Colours and type of the page, light and dark: Gradio's theme, and the style sheets of static/."""

from __future__ import annotations

from typing import Any

import gradio as gr

from .components import static

STYLES = ("page", "pictures", "maps", "tokens", "help")
SANS = ("IBM Plex Sans", "system-ui", "sans-serif")
MONO = ("IBM Plex Mono", "ui-monospace", "monospace")

# name: (light, dark)
COLOURS = {
    "paper": ("#faf8f4", "#11141b"),
    "panel": ("#ffffff", "#181c25"),
    "sunk": ("#f1eee7", "#0d1016"),
    "hairline": ("#e2ddd2", "#2a303d"),
    "ink": ("#1c2230", "#eceae4"),
    "quiet": ("#6b7180", "#98a0b0"),
    "accent": ("#1f5f99", "#7cb7ea"),
    "for": ("#2166ac", "#7cb7ea"),
    "against": ("#b2182b", "#f08a7d"),
    "gold": ("#a87908", "#e3b341"),
}


def theme() -> Any:
    """Gradio's theme in our colours."""
    mono = gr.themes.LocalFont(MONO[0], weights=(400, 700))
    sans = gr.themes.LocalFont(SANS[0], weights=(400, 700))
    base = gr.themes.Base(
        primary_hue=gr.themes.colors.blue,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_md,
        font=[sans, *SANS[1:]],
        font_mono=[mono, *MONO[1:]],
    )
    pairs = {
        "body_background_fill": "paper",
        "body_text_color": "ink",
        "body_text_color_subdued": "quiet",
        "background_fill_primary": "panel",
        "background_fill_secondary": "paper",
        "block_background_fill": "panel",
        "block_border_color": "hairline",
        "block_label_text_color": "quiet",
        "block_title_text_color": "quiet",
        "block_info_text_color": "quiet",
        "border_color_primary": "hairline",
        "border_color_accent": "accent",
        "color_accent": "accent",
        "input_background_fill": "panel",
        "input_border_color": "hairline",
        "input_border_color_focus": "accent",
        "slider_color": "accent",
        "button_primary_background_fill": "accent",
        "button_primary_background_fill_hover": "ink",
        "button_primary_text_color": "paper",
        "button_secondary_background_fill": "panel",
        "button_secondary_background_fill_hover": "sunk",
        "button_secondary_text_color": "ink",
        "button_secondary_border_color": "hairline",
        "checkbox_background_color_selected": "accent",
        "checkbox_border_color_selected": "accent",
    }
    single = {"color_accent"}  # has no dark variant: the style sheet's variables follow the mode
    settings: dict[str, str] = {"block_shadow": "none", "input_border_width": "1px"}
    for name, colour in pairs.items():
        settings[name] = f"var(--t2i-{colour})"
        if name not in single:
            settings[f"{name}_dark"] = f"var(--t2i-{colour})"
    return base.set(**settings)


def head() -> str:
    """The colours as variables, before everything: Gradio narrows what `css` says to the inside of the page, and paints
    the ground once, in the colour of the first paint."""
    light, dark = (
        ";".join(f"--t2i-{name}:{pair[mode]}" for name, pair in COLOURS.items()) for mode in (0, 1)
    )
    ground = "body{background:var(--t2i-paper)!important}"
    return f"<style>:root{{{light}}} .dark{{{dark}}} {ground}</style>"


def css() -> str:
    """The style sheets."""
    return "\n".join(static(f"{name}.css").decode() for name in STYLES)
