"""How long tests wait for what comes at once on a quiet machine."""

PATIENCE = 500.0  # s: less would tell a loaded machine's tests from those that hang
