"""A model is data: its recipe, and the recipes that ship with the program."""
