"""Templates of a package that brings a task of its own: what ``benchsuite plugin new NAME --kind task`` writes."""
