"""What scripts/bench measures on the rig beside whole tunnels (ablation, targets, scale), and the report of all results.

The rig, its loads and its tunnels are those of tunnellib and demolib."""
