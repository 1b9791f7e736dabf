"""Jobs of business systems: submitted on the control plane, answered whenever there is room."""
