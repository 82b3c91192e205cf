"""Arm Ethos-U: an int8 TFLite file is written from the graph, and Arm's Vela compiles it."""
