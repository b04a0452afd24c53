"""The README's example screens, behind scripts/screens: `site` runs beam under some load, `blocks` puts what it prints
into the README. Standard library only; the rig is the demo's."""
