"""Coarse categories of noise classes, by what makes the sound; the grouping is ours.

For tasks whose classes do not occur in every split: the classes of training and test may differ
where their categories do not. Known are the sixteen classes of the synthetic corpus and those of
the folder corpus dynse-mini; further classes are a line here.
"""

from __future__ import annotations

_CLASSES = {
    # voices and what else people do with their bodies
    "people": (
        "applause", "babble", "baby_cry", "cafe_babble", "crowd", "market_square",
        "miaowing_voice", "person_sneeze", "playground_children",
    ),
    "animals": ("birds", "calls", "dog_bark", "insects_night", "rooster"),
    # weather, water, fire
    "nature": (
        "fire", "fire_crackling", "leaves", "rain", "rain_long", "running_tap", "sea_waves",
        "sea_waves_long", "stream", "thunderstorm", "water_drops", "waterfall", "waves", "wind",
    ),
    # motors that stand still, and mains
    "machines": (
        "air_conditioner", "chainsaw", "dishwasher", "exercise_bike", "fan", "fridge", "hum",
        "machinery", "vacuum_cleaner",
    ),
    # motors that drive, and where they drive
    "traffic": (
        "airplane_cabin", "boat", "car_engine", "engine", "forest_highway", "helicopter",
        "street", "street_wind", "train_inside", "train_passing",
    ),
    # things that are struck, dropped, or tick
    "objects": ("clatter", "clock_tick", "dishes", "keyboard"),
    "tones": ("alarm", "music"),
    # synthetic noise that is like nothing in particular
    "abstract": ("coloured", "texture"),
}  # fmt: skip
CATEGORIES = tuple(_CLASSES)
_CATEGORY_OF = {name: category for category, names in _CLASSES.items() for name in names}


def noise_category(noise_class: str) -> str | None:
    """One of CATEGORIES, or None for a class that is not known."""
    return _CATEGORY_OF.get(noise_class)
