"""The shell around the numerics: configuration, identity, store, tracking, command line."""

import os

# OpenMP threads that spin while they wait make two runs on one machine twenty times slower;
# threads that sleep cost a run that is alone next to nothing. Must be set before torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
