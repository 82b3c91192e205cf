"""Backends: what prices candidates and times whole models on a target."""
