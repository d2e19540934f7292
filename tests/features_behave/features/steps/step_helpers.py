"""A module in the folder of the steps; it is executed as a step file, too."""

WORD = "beside"
