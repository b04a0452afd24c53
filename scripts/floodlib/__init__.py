"""What a flood does to a gateway, behind scripts/pktgen/steering and scripts/pktgen/collateral: `floods` sends with the
scripts of scripts/pktgen on the demo's rig, `steering` finds each packet again, `collateral` measures a tunnel meanwhile."""
