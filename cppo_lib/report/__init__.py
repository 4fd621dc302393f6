"""Tables, figures and conclusions, from records alone."""
