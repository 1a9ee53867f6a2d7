"""Recipes: the data about a model and its conversion, and the recipes that ship with the program."""
