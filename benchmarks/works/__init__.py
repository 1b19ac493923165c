"""Models, steps and training runs that several rows measure."""
