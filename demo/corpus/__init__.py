"""The text generator that the demo model and the demo scorer are trained on."""
