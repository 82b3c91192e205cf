"""Post-training quantizers that are measured beside actcc, one module a tool."""
