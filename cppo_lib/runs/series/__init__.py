"""The runs of a profile in order, side by side, and what is out of date."""
