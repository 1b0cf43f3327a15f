"""The words of generated stories. Lists are ordered: a difficulty that uses fewer words takes the first ones."""

from __future__ import annotations

NAMES = (
    "Anna", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry", "Iris", "Jack",
    "Kate", "Leo", "Maria", "Noah", "Olivia", "Paul", "Rosa", "Sam", "Tina", "Victor",
    "Alice", "Bruno", "Daisy", "Erik", "Fiona", "George", "Hanna", "Ivan", "Julia", "Karl",
    "Laura", "Martin", "Nora", "Oscar", "Petra", "Robert", "Sara", "Thomas", "Vera", "William",
)  # fmt: skip
THINGS = (
    "apple", "lemon", "carrot", "onion", "peach", "melon", "pear", "plum", "potato", "cherry",
    "banana", "tomato", "cabbage", "radish", "corn", "celery", "grape", "lime", "mango", "pumpkin",
    "spinach", "turnip", "orange", "lettuce", "cucumber", "eggplant", "broccoli", "pineapple", "apricot", "fig",
)  # fmt: skip
ROOMS = (
    "kitchen", "garden", "office", "hall", "attic", "cellar", "garage", "porch", "study", "bedroom",
    "living_room", "dining_room", "playroom", "workshop", "hallway", "patio", "lounge", "pantry", "bathroom", "den",
)  # fmt: skip
_COLOURS = ("red", "blue", "green")
_VESSELS = (
    "box", "basket", "drawer", "bottle", "crate", "bucket", "suitcase", "envelope", "cupboard", "bathtub",
    "container", "treasure_chest",
)  # fmt: skip
CONTAINERS = tuple(f"{colour}_{vessel}" for vessel in _VESSELS for colour in _COLOURS)
"""Coloured, as in the benchmark."""
PLAIN_CONTAINERS = (
    "box", "basket", "drawer", "bottle", "crate", "bucket", "suitcase", "envelope", "cupboard", "bathtub",
    "container", "chest", "jar", "bag", "tin", "bowl", "barrel", "shelf", "sack", "trunk", "cabinet", "locker",
    "pot", "tray",
)  # fmt: skip
"""One word each: easier to copy for a small model."""
ANIMALS = ("cat", "dog", "mouse", "bird")
BELONGINGS = ("watch", "phone", "glove", "key")
